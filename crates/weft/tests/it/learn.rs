//! Generators that are learnt from adapters and their descriptions alone.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use weft::adapters::codec::Per;
use weft::adapters::generate::{GenerateRequest, Like, MadeView, Model, generate};
use weft::adapters::learn::{Encoder, Learn, LearntView, learn};
use weft::adapters::zoo::AdapterZoo;
use weft::{Error, Monitor};
use weft_codec::adapter::{CrossGrams, Grams};
use weft_core::Seed;
use weft_core::products::Here;
use weft_testkit::PlantedAdapters;
use weft_zoo::adapter::{AdapterExport, AdapterProfile, AdapterProvenance, AdapterUpdate, AdapterWeights};

const SIZES: [[usize; 2]; 2] = [[8, 6], [5, 7]];
const RANK: usize = 3;
/// Of each direction, what an adapter is called on either side of it.
const WORDS: [[&str; 2]; 4] = [["quick", "slow"], ["warm", "cold"], ["loud", "quiet"], ["bright", "dark"]];

/// Adapters in four dimensions, each in a gauge of its own, and what is said of each: on which side it lies in each.
struct Planted {
    adapters: PlantedAdapters,
    count: usize,
}

impl Planted {
    fn new(count: usize) -> Self {
        Self { adapters: PlantedAdapters::new(&SIZES, [RANK, WORDS.len(), count], Seed::new(3)), count }
    }

    fn text(&self, adapter: usize) -> String {
        let code = &self.adapters.codes()[adapter * WORDS.len()..][..WORDS.len()];
        let words: Vec<&str> = code.iter().zip(WORDS).map(|(z, words)| words[usize::from(*z < 0.0)]).collect();
        format!("for {}", words.join(" and "))
    }

    /// Writes the adapters as folders of PEFT, and the descriptions.
    fn write(&self, folder: &Path, descriptions: &Path) {
        let mut lines = String::new();
        for adapter in 0..self.count {
            let update = |(at, [out, input]): (usize, &[usize; 2])| {
                let (b, a) = self.adapters.factors(adapter, at);
                AdapterUpdate { scaling: 2.0, ..AdapterUpdate::linear(&format!("h.0.m{at}"), [*out, RANK, *input], a, b) }
            };
            let updates = SIZES.iter().enumerate().map(update).collect();
            let weights = AdapterWeights { base: Some("org/base".to_owned()), updates, ..AdapterWeights::default() };
            let provenance = AdapterProvenance::default();
            let export = AdapterExport::new(AdapterProfile::Peft, &provenance);
            weights.write(&export, &folder.join(format!("a{adapter:02}"))).expect("an adapter");
            let _ = writeln!(lines, "a{adapter:02}\t{}", self.text(adapter));
        }
        std::fs::write(descriptions, lines).expect("descriptions");
    }
}

fn request(folder: &Path, output: &str) -> Learn {
    Learn {
        adapters: folder.join("zoo"),
        descriptions: folder.join("texts.tsv"),
        encoder: Encoder::Hashing,
        per: Per::Adapter,
        components: 4,
        steps: 150,
        width: 32,
        folds: 4,
        seed: 0,
        device: "cpu".to_owned(),
        output: folder.join(output),
    }
}

fn learnt(count: usize) -> (tempfile::TempDir, Planted, LearntView) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let planted = Planted::new(count);
    planted.write(&dir.path().join("zoo"), &dir.path().join("texts.tsv"));
    let view = learn(&request(dir.path(), "generator"), &Monitor::silent()).expect("a generator");
    (dir, planted, view)
}

fn made(folder: &Path, text: &str, output: &str, change: impl Fn(&mut GenerateRequest)) -> Result<MadeView, Error> {
    let mut request = GenerateRequest::new(&folder.join("generator"), text.as_bytes(), &folder.join(output));
    change(&mut request);
    generate(&request, &Monitor::silent())
}

fn refused(result: Result<MadeView, Error>, parts: &[&str]) {
    let message = result.expect_err("it is refused").to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in {message}");
    }
}

/// The relative distance of an adapter's update from another's.
fn apart(one: &Path, other: &Path) -> f64 {
    let zoo = AdapterZoo::of(&[one.to_owned(), other.to_owned()], &Monitor::silent()).expect("adapters");
    let grams = Grams::of(&zoo, &Here).expect("products");
    (grams.distances()[1].powi(2) / grams.total()[0]).sqrt()
}

#[test]
fn what_descriptions_tell_is_found_measured_and_sampled() {
    let (dir, planted, view) = learnt(48);
    let folder = dir.path();
    assert_eq!((view.adapters, view.modules, view.descriptions, view.code_len), (48, 2, 48, 4));
    let check = view.check.as_ref().expect("a check");
    // A sign tells `2/π` of the variance of a normal number.
    let told = check.row("ridge on updates").expect("a row").mean;
    assert!((0.35..0.75).contains(&told), "{told}");
    let of_mean = check.row("mean of updates").expect("a row").mean;
    assert!(of_mean.abs() < 1e-9 && check.beyond.mean < 1e-3, "{of_mean}, {:?}", check.beyond);
    let ridge = check.evaluation.verdicts.iter().find(|v| v.generator == "ridge on updates").expect("a verdict");
    assert!(ridge.uses_condition && !ridge.not_beaten.iter().any(|row| row == "mean of updates"), "{ridge:?}");
    assert!(check.distances[1] < 1.5 && check.distances[2].abs() < 1e-6, "{:?}", check.distances);

    // What is made for a description is nearer to the adapters of which it is said than what is made for the opposite.
    let text = planted.text(5);
    let opposite: Vec<&str> = WORDS.iter().map(|[a, b]| if text.contains(*a) { *b } else { *a }).collect();
    let one = made(folder, &text, "one", |_| {}).expect("an adapter");
    assert!(one.nearest[0] == "a05" || planted.text(one.nearest[0][1..].parse().expect("a number")) == text, "{one:?}");
    assert!(one.notes.iter().all(|note| !note.contains("extrapolating")), "{:?}", one.notes);
    made(folder, &format!("for {}", opposite.join(" and ")), "other", |_| {}).expect("an adapter");
    let own = folder.join("zoo/a05");
    assert!(apart(&own, &folder.join("one")) < 0.7 * apart(&own, &folder.join("other")));
    // The folder says where it comes from.
    let card = std::fs::read_to_string(folder.join("one/README.md")).expect("a card");
    assert!(card.contains("org/base") && card.contains("weft adapter learn") && card.contains("--model ridge"), "{card}");

    let three = made(folder, &text, "three", |r| (r.model, r.count, r.seed) = (Some(Model::Flow), 3, 4)).expect("adapters");
    assert_eq!(three.written.len(), 3);
    assert!(apart(&three.written[0], &three.written[1]) > 0.05);
    let again = made(folder, &text, "again", |r| (r.model, r.count, r.seed) = (Some(Model::Flow), 3, 4)).expect("adapters");
    assert!(apart(&three.written[2], &again.written[2]) == 0.0);
    far_and_near(folder, &own);
}

fn far_and_near(folder: &Path, own: &Path) {
    for (model, name) in [(Model::Ridge, "near-ridge"), (Model::Flow, "near-flow")] {
        let like = |strength: f64| Some(Like { name: "a05".to_owned(), strength });
        let text = "for slow and cold and quiet and dark";
        made(folder, text, name, |r| (r.model, r.like) = (Some(model), like(0.0))).expect("an adapter");
        assert!(apart(own, &folder.join(name)) < 2e-3, "{name}: {}", apart(own, &folder.join(name)));
        let [half, whole] = [0.5, 1.0].map(|strength| {
            let to = format!("{name}-{strength}");
            made(folder, text, &to, |r| (r.model, r.like) = (Some(model), like(strength))).expect("an adapter");
            apart(own, &folder.join(to))
        });
        assert!(half > 1e-2 && whole > half, "{name}: {half}, {whole}");
    }
    let far = made(folder, "zzxq 9981", "far", |_| {}).expect("an adapter");
    assert!(far.notes.iter().any(|note| note.contains("extrapolating") && note.contains("cosine")), "{:?}", far.notes);
    made(folder, "for quick", "low", |r| r.rank = Some(1)).expect("an adapter");
    assert_eq!(AdapterZoo::of(&[folder.join("low")], &Monitor::silent()).expect("an adapter").max_rank(), 1);
    refused(made(folder, " ", "x", |_| {}), &["white space"]);
    refused(made(folder, "a", "x", |r| r.model = Some(Model::Hyper)), &["`hyper`", "ridge"]);
    refused(made(folder, "a", "x", |r| r.count = 2), &["any model but the flow"]);
    refused(made(folder, "a", "x", |r| r.encoder = Some(PathBuf::from("y"))), &["--encoder"]);
    refused(made(folder, "a", "x", |r| r.like = Some(Like { name: "b".to_owned(), strength: 0.5 })), &["`b`"]);
    refused(made(folder, "a", "one", |_| {}), &["one"]);
    edited(folder);
    // The adapters have moved, and one of them is another.
    std::fs::rename(folder.join("zoo"), folder.join("moved")).expect("a move");
    assert!(made(folder, "for quick", "x", |_| {}).is_err());
    let moved = Some(folder.join("moved"));
    made(folder, "for quick", "found", |r| r.adapters.clone_from(&moved)).expect("an adapter");
    std::fs::copy(folder.join("moved/a00/adapter_model.safetensors"), folder.join("moved/a01/adapter_model.safetensors"))
        .expect("a copy");
    refused(made(folder, "for quick", "x", |r| r.adapters.clone_from(&moved)), &["a01", "not those that the codec was fitted on"]);
    assert!(!folder.join("x").exists());
}

/// A generator's files belong together, and its numbers are such that it may have.
fn edited(folder: &Path) {
    let generator = folder.join("generator");
    let path = generator.join("learnt.json");
    let text = std::fs::read_to_string(&path).expect("a description");
    let fails = |from: &str, to: &str, parts: &[&str]| {
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).expect("a description");
        refused(made(folder, "for quick", "x", |r| r.model = Some(Model::Flow)), parts);
    };
    fails("\"sampler-steps\": 20", "\"sampler-steps\": 1000000000000", &["sampler-steps", "1000000000000"]);
    fails("\"sampler-steps\": 20", "\"sampler-steps\": 0", &["sampler-steps"]);
    fails("\"familiar\": ", "\"familiar\": 1e300, \"other\": ", &["other"]);
    fails("\"version\": 1", "\"version\": 2", &["version 2"]);
    std::fs::write(&path, &text).expect("a description");
    for name in ["ridge.safetensors", "flow.safetensors", "seen.safetensors"] {
        let own = std::fs::read(generator.join(name)).expect("a file");
        let mut other = own.clone();
        *other.last_mut().expect("bytes") ^= 1;
        std::fs::write(generator.join(name), other).expect("a file");
        refused(made(folder, "for quick", "x", |_| {}), &[name, "not the file that was written with it"]);
        std::fs::write(generator.join(name), own).expect("a file");
    }
}

/// Descriptions of other adapters tell nothing, and it is seen of the flow as of the ridge: what is told instead was left out as well.
#[test]
fn descriptions_that_tell_nothing_are_found_out() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path();
    let planted = Planted::new(40);
    planted.write(&folder.join("zoo"), &folder.join("true.tsv"));
    let order = Seed::new(9).permutation(40);
    // A word of its own makes each description one that can be learnt by heart.
    let line = |(i, &other): (usize, &u32)| format!("a{i:02}\t{} case {i}{i}{i}\n", planted.text(other as usize));
    std::fs::write(folder.join("texts.tsv"), order.iter().enumerate().map(line).collect::<String>()).expect("descriptions");
    let view = learn(&Learn { steps: 600, ..request(folder, "generator") }, &Monitor::silent()).expect("a generator");
    let check = view.check.expect("a check");
    for name in ["ridge on updates", "flow on codes"] {
        let verdict = check.evaluation.verdicts.iter().find(|v| v.generator == name).expect("a verdict");
        assert!(!verdict.uses_condition && verdict.not_beaten.iter().any(|row| row == "mean of updates"), "{verdict:?}");
    }
    assert!(check.row("flow on codes").expect("a row").mean < 0.0);
    assert_eq!(view.notes.iter().filter(|note| note.contains("hardly of the text")).count(), 2, "{:?}", view.notes);
}

#[test]
fn few_adapters_are_said_to_be_few_and_what_is_missing_is_named() {
    let (dir, _, view) = learnt(3);
    let folder = dir.path();
    assert!(view.notes.iter().any(|note| note.contains("3 adapters") && note.contains("interpolate")), "{:?}", view.notes);
    // Each is left out by itself, since larger folds would leave one to learn from.
    let folds =
        |folds| learn(&Learn { folds, ..request(folder, &format!("of-{folds}")) }, &Monitor::silent()).expect("a generator");
    let check = folds(2).check.expect("a check");
    assert_eq!((check.folds, check.evaluation.rows.len(), check.distances.len()), (3, 6, 6), "no other description was left out");
    assert!(folds(0).notes.iter().any(|note| note.contains("no check was asked for")));
    let made = made(folder, "for quick and warm", "one", |_| {}).expect("an adapter");
    assert!(made.notes.iter().any(|note| note.contains("interpolate")), "{:?}", made.notes);

    let fails = |change: &dyn Fn(&mut Learn), parts: &[&str]| {
        let mut request = request(folder, "refused");
        change(&mut request);
        let message = learn(&request, &Monitor::silent()).expect_err("it is refused").to_string();
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in {message}");
        }
        assert!(!folder.join("refused").exists());
    };
    let texts = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).expect("descriptions");
        folder.join(name)
    };
    let [lacking, same] =
        [texts("lacking.tsv", "a00\tone\na02\ttwo\n"), texts("same.tsv", "a00\tone\na01\tone\na02\tone\nb\tno\n")];
    fails(&|r| r.descriptions.clone_from(&lacking), &["none for 1 of 3", "`a01`"]);
    fails(&|r| r.descriptions = folder.join("nowhere.tsv"), &["nowhere.tsv"]);
    fails(&|r| r.adapters = folder.join("nowhere"), &["nowhere"]);
    fails(&|r| r.encoder = Encoder::Bert(folder.join("nowhere")), &["nowhere"]);
    fails(&|r| r.steps = 0, &["--steps"]);
    fails(&|r| r.output = folder.join("zoo"), &["zoo"]);
    assert!(view.notes.iter().all(|note| !note.contains("hardly of the text")), "nothing was told instead: {:?}", view.notes);
    // One description for all tells nothing, and it is said.
    let view = learn(&Learn { descriptions: same, ..request(folder, "same") }, &Monitor::silent()).expect("a generator");
    let says = |part: &str| view.notes.iter().any(|note| note.contains(part));
    assert!(view.check.is_none() && says("fewer than three descriptions") && says("not read: b"), "{:?}", view.notes);
    let cross = AdapterZoo::open(&folder.join("zoo"), &Monitor::silent()).expect("adapters");
    assert_eq!(CrossGrams::of(&cross, &cross).expect("products").shape(), [3, 3]);
}
