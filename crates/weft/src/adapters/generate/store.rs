//! Generators of adapters on disk, and adapters made with them.
//!
//! ```text
//! generator/
//!   generator.json        base, licence, and the training tasks by name
//!   architecture.toml     what an adapter is
//!   codec.safetensors     codes ⇄ factors
//!   hyper.safetensors     the hyper-decoder
//!   flow.safetensors      the flow, if the run had one
//!   refiner.safetensors   what mends its samples, if the run had that
//!   seen.safetensors      of each training task the sum of its samples' vectors, and the code of its own adapter
//! ```

use super::super::base::read as read_base;
use super::super::learn as learnt;
use super::super::sentences::SentenceReader;
use super::super::train::{family_of, task_type};
use super::baselines;
use super::learn::Learnt;
use super::shown::{self, Shown};
use crate::config::{AdapterRunConfig, AdapterTaskConfig, ShownConfig};
use crate::stages::{read_artifact, write_artifact};
use crate::{Error, Monitor, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft_codec::Codec;
use weft_core::{Architecture, Condition, Population, RopePairs, Seed};
use weft_gen::{Artifact, Flow, Generator as _, HyperDecoder, Refiner, Sampler, SamplerConfig};
use weft_net::Device;
use weft_net::adapters::{AdapterLayout, Adapters};
use weft_zoo::adapter::{AdapterExport, AdapterParent, AdapterProfile, AdapterProvenance, AdapterWeights};

const DESCRIPTION: &str = "generator.json";
const ARCHITECTURE: &str = "architecture.toml";
const CODEC: &str = "codec.safetensors";
const HYPER: &str = "hyper.safetensors";
const FLOW: &str = "flow.safetensors";
const REFINER: &str = "refiner.safetensors";
const SEEN: &str = "seen.safetensors";
/// The tensors in [`SEEN`].
const VECTORS: &str = "vectors";
const CODES: &str = "codes";
/// The longest description that is read.
const MAX_DESCRIPTION_BYTES: u64 = 16 << 20;
/// The version of the folder's format.
const VERSION: u32 = 2;
/// The longest sample that is looked at, in bytes.
const MAX_SAMPLE: usize = 1 << 20;
/// Names that are offered for one that is not known.
const NEAREST_NAMES: usize = 5;
/// Adapters of one call, at most.
const MAX_COUNT: usize = 10_000;

/// `generator.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Description {
    version: u32,
    base: String,
    licence: String,
    sample_bytes: usize,
    sampler_steps: usize,
    familiar: f64,
    /// In which order the base's rows of queries and keys stand.
    rotary: Option<String>,
    /// The training tasks: languages, or intents by their names.
    languages: Vec<String>,
    configuration: String,
    /// What sentences show, if these are no text in a language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sentences: Option<SentencesDescription>,
}

/// What generators are shown that are shown sentences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SentencesDescription {
    shown: ShownConfig,
    /// How many it learnt from at a time.
    count: usize,
    /// The digest of the base and its tokenizer, which read them.
    reader: String,
}

/// The most sentences that are looked at.
const MAX_SENTENCES: usize = 4_096;

/// Trained generators, to be written.
pub(in super::super) struct Stored {
    /// The name of their folder in a run's output.
    pub(in super::super) folder: String,
    sentences: Option<SentencesDescription>,
    codec: Arc<Codec>,
    hyper: HyperDecoder,
    flow: Option<Flow>,
    refiner: Option<Refiner>,
    names: Vec<String>,
    vectors: Vec<Vec<f32>>,
    familiar: f64,
    /// Codes of the training tasks' own adapters, `[n, k]`.
    codes: Vec<f32>,
    rotary: Option<RopePairs>,
}

impl Stored {
    /// What was learnt from training tasks of these names and codes, for the first way in which tasks are shown or another.
    pub(super) fn new(number: usize, shown: &Shown, learnt: Learnt, (names, codes): (Vec<String>, Vec<f32>)) -> Self {
        let sentences = match shown {
            Shown::Text(_) => None,
            Shown::Sentences(sets) => Some(SentencesDescription {
                shown: sets.kind,
                count: sets.drawn.unwrap_or_else(|| sets.of_tasks.iter().map(Vec::len).max().unwrap_or(0)),
                reader: sets.reader.digest().to_string(),
            }),
        };
        let folder = if number == 0 { "generator".to_owned() } else { format!("generator-{}", shown.name()) };
        let Learnt { codec, hyper, flow, refiner, vectors, familiar, .. } = learnt;
        Self { folder, sentences, codec, hyper, flow, refiner, names, vectors, familiar, codes, rotary: None }
    }

    /// The same over a base whose rows of queries and keys stand in this order.
    pub(super) fn over(self, rotary: Option<RopePairs>) -> Self {
        Self { rotary, ..self }
    }

    /// Writes them into a folder that is made.
    pub(in super::super) fn write(
        &self,
        folder: &Path,
        config: &crate::config::AdapterRunConfig,
        architecture: &Architecture,
    ) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let generate = config.generate.clone().unwrap_or_default();
        let description = Description {
            version: VERSION,
            base: config.base.name.clone(),
            licence: config.base.licence.clone(),
            sample_bytes: generate.sample_bytes,
            sampler_steps: generate.flow.map_or(1, |flow| flow.sampler_steps),
            familiar: self.familiar,
            rotary: self.rotary.map(|pairs| weft_zoo::rotary_name(pairs).to_owned()),
            languages: self.names.clone(),
            configuration: config.to_toml(),
            sentences: self.sentences.clone(),
        };
        crate::stages::write_json(&folder.join(DESCRIPTION), &description)?;
        weft_zoo::write_atomic(&folder.join(ARCHITECTURE), weft_zoo::architecture_to_toml(architecture).as_bytes())?;
        weft_zoo::write_tensors(&folder.join(CODEC), &self.codec.to_tensors(), &weft_zoo::Metadata::new())?;
        write_artifact(&folder.join(HYPER), &self.hyper.save())?;
        if let Some(flow) = &self.flow {
            write_artifact(&folder.join(FLOW), &flow.save())?;
        }
        if let Some(refiner) = &self.refiner {
            write_artifact(&folder.join(REFINER), &refiner.save())?;
        }
        let seen = Artifact::default().with_vector(VECTORS, &self.vectors.concat()).with_vector(CODES, &self.codes);
        write_artifact(&folder.join(SEEN), &seen)
    }
}

/// Which generator of a folder makes adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// One adapter for a sample, in one pass; of a run.
    Hyper,
    /// One adapter for a text, by the ridge on updates; of what was [learnt](super::super::learn) from adapters alone.
    Ridge,
    /// The flow, with its refiner if the run had one: any number of them.
    Flow,
}

/// What to make.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// The folder `generator` of a run, or one that [`learn`](super::super::learn::learn) wrote.
    pub generator: PathBuf,
    /// Text that shows what the adapter is for: some of a language, names of intents or utterances, one a line or between semicolons, or what the adapter is to do. It
    /// may be left out where `like` says what it is to be near: then nothing is told beside.
    pub sample: Option<Vec<u8>>,
    /// Which generator; the hyper-decoder of a run, and the ridge of what was learnt from adapters alone, where it is not said.
    pub model: Option<Model>,
    /// How many.
    pub count: usize,
    /// The seed.
    pub seed: u64,
    /// A training task whose adapter it is to be near, if any.
    pub like: Option<Like>,
    /// The rank, where the generator was learnt from adapters alone; the largest of theirs where it is not said.
    pub rank: Option<usize>,
    /// The folder that these adapters have moved to.
    pub adapters: Option<PathBuf>,
    /// The folder that their descriptions' encoder has moved to.
    pub encoder: Option<PathBuf>,
    /// The folder to write: an adapter, or of several one a folder in it.
    pub output: PathBuf,
}

impl GenerateRequest {
    /// One adapter of a sample by the generator's own model.
    #[must_use]
    pub fn new(generator: &Path, sample: &[u8], output: &Path) -> Self {
        Self {
            generator: generator.to_owned(),
            sample: Some(sample.to_vec()),
            model: None,
            count: 1,
            seed: 0,
            like: None,
            rank: None,
            adapters: None,
            encoder: None,
            output: output.to_owned(),
        }
    }
}

/// An adapter of training that others are made near.
#[derive(Debug, Clone, PartialEq)]
pub struct Like {
    /// The training task's name: a language's, or a task's title as the report has it.
    pub name: String,
    /// How far from it: 0 is its adapter as the codec keeps it, 1 is a sample that knows nothing of it. The hyper-decoder mixes codes in this
    /// proportion; the flow brings the code to the time `1 − strength` with noise and from there back.
    pub strength: f64,
}

/// A sample of text from a file.
///
/// # Errors
/// A file that is not there or no regular one, or is longer than a sample may be.
pub fn read_sample(path: &Path) -> Result<Vec<u8>> {
    Ok(weft_zoo::read_bounded(path, MAX_SAMPLE as u64)?)
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MadeView {
    /// The folder of each adapter.
    pub written: Vec<PathBuf>,
    /// The training tasks that look most like the sample, the nearest first; none where there was no sample.
    pub nearest: Vec<String>,
    /// The cosines of what shows them and the sample.
    #[serde(default)]
    pub cosines: Vec<f64>,
    /// Milliseconds from the sample to all factors, the generator's files not counted.
    pub millis: f64,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// Makes adapters from a sample of text, each a folder of PEFT that every runtime takes.
///
/// # Errors
/// A folder that is no generator or is damaged, an empty sample or one that is too long, several adapters of a hyper-decoder, which makes one,
/// a name that is no training task's, a strength that is no part, factors that are not finite, a stop, or an output that is there already.
pub fn generate(request: &GenerateRequest, monitor: &Monitor) -> Result<MadeView> {
    weft_zoo::refuse_existing(&request.output)?;
    let within = |what, expected: &str, ok: bool, got: String| {
        if ok { Ok(()) } else { Err(Error::Range { what, expected: expected.to_owned(), got }) }
    };
    let (bytes, count) = (request.sample.as_ref().map_or(0, Vec::len), request.count);
    let blank = request.sample.as_ref().is_some_and(|sample| sample.iter().all(u8::is_ascii_whitespace));
    let what = "the sample that shows what to make";
    within(what, "some text", !blank, "nothing but white space".to_owned())?;
    within(what, "some text, or an adapter to be near", request.sample.is_some() || request.like.is_some(), "neither".to_owned())?;
    within(what, "at most 1 MiB", bytes <= MAX_SAMPLE, format!("{bytes} bytes"))?;
    within("the number of adapters", "between 1 and 10000", (1..=MAX_COUNT).contains(&count), count.to_string())?;
    let one = request.model == Some(Model::Flow) || count == 1;
    within("the number of adapters of any model but the flow", "1: it makes the same for the same sample", one, count.to_string())?;
    let strength = request.like.as_ref().map_or(0.0, |like| like.strength);
    let part = (0.0..=1.0).contains(&strength);
    within("`--strength`", "between 0 (the training adapter) and 1 (a fresh sample)", part, strength.to_string())?;
    if learnt::is_one(&request.generator) {
        return learnt::generate(request, monitor);
    }
    for (what, given) in [
        ("`--rank`", request.rank.is_some()),
        ("`--adapters`", request.adapters.is_some()),
        ("`--encoder`", request.encoder.is_some()),
    ] {
        let expected = "left out: the generator is of a run of `weft adapter train`, not of `weft adapter learn`";
        within(what, expected, !given, "given".to_owned())?;
    }
    let model = request.model.unwrap_or(Model::Hyper);
    within("the model of this generator", "`hyper` or `flow`", model != Model::Ridge, "`ridge`".to_owned())?;
    is_generator(&request.generator)?;
    let opened = Opened::open(&request.generator)?;
    let near = match &request.like {
        Some(like) => Some((opened.code(&like.name)?, like.strength)),
        None => None,
    };
    let generator = opened.generator(model)?;
    let started = std::time::Instant::now();
    let sample = request.sample.as_ref().map(|sample| opened.vector(sample)).transpose()?;
    let condition = sample.as_ref().map_or_else(Condition::unknown, |(vector, _)| shown::shown(vector.clone()));
    let made = generator.sample((count, near), &condition, Seed::new(request.seed))?;
    let millis = started.elapsed().as_secs_f64() * 1e3;
    let mut notes = match &sample {
        Some((vector, count)) => opened.notes((vector, *count), &condition)?,
        None => Vec::new(),
    };
    let outputs: Vec<PathBuf> = match count {
        1 => vec![request.output.clone()],
        _ => (0..count).map(|i| request.output.join(format!("{i:04}"))).collect(),
    };
    for note in opened.write(&made, (request, model), &outputs)? {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    let (nearest, cosines) = sample
        .map(|(vector, _)| nearest(&opened.vectors, &vector, |i| opened.description.languages[i].clone()))
        .unwrap_or_default();
    Ok(MadeView { written: outputs, nearest, cosines, millis, notes })
}

/// The names of the three nearest to a vector, and their cosines.
pub(in super::super) fn nearest(vectors: &[Vec<f32>], vector: &[f32], name: impl Fn(usize) -> String) -> (Vec<String>, Vec<f64>) {
    let cosines = baselines::cosines(vectors, vector);
    let order = baselines::nearest(vectors, vector);
    order.into_iter().take(3).map(|i| (name(i), cosines[i])).unzip()
}

/// Refuses a folder that is no generator, and says where one is.
fn is_generator(folder: &Path) -> Result<()> {
    if folder.join(DESCRIPTION).is_file() || !folder.is_dir() {
        return Ok(());
    }
    let inside = folder.join("generator");
    let reason = if inside.join(DESCRIPTION).is_file() {
        format!("it is the output of a run; its generator is `{}`", inside.display())
    } else {
        "it is no generator: `weft adapter train` with `[generate]` makes one, and so does `weft adapter learn`".to_owned()
    };
    Err(Error::Given { path: folder.to_owned(), reason })
}

/// The names that are most like one that is not known.
pub(in super::super) fn names_like<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut nearest: Vec<&str> = known.collect();
    nearest.sort_by_key(|known| (strsim::damerau_levenshtein(name, known), *known));
    nearest.into_iter().take(NEAREST_NAMES).map(str::to_owned).collect()
}

/// A generator's folder, read and checked.
struct Opened {
    folder: PathBuf,
    description: Description,
    architecture: Arc<Architecture>,
    codec: Arc<Codec>,
    vectors: Vec<Vec<f32>>,
    /// `[n, k]`.
    codes: Vec<f32>,
    hyper: HyperDecoder,
    reader: Option<SentenceReader>,
}

/// A generator that was opened.
enum Made {
    Hyper(Box<HyperDecoder>),
    /// With what mends its samples.
    Flow(Box<Flow>, Option<Box<Refiner>>),
}

impl Made {
    /// Samples so many adapters, near a code by a strength if there is one.
    fn sample(&self, (count, near): (usize, Option<(&[f32], f64)>), condition: &Condition, seed: Seed) -> Result<Population> {
        match self {
            Self::Hyper(hyper) => Ok(match near {
                None => hyper.sample(count, condition, seed)?,
                Some(near) => hyper.sample_near(near, condition)?,
            }),
            Self::Flow(flow, refiner) => {
                let own = if refiner.is_some() { seed.fork("proposal") } else { seed };
                let made = match near {
                    None => flow.sample(count, condition, own)?,
                    Some(near) => flow.sample_near(near, count, condition, own)?,
                };
                // Nothing is to be mended of the training adapter itself.
                let refiner = refiner.as_ref().filter(|_| near.is_none_or(|(_, strength)| strength > 0.0));
                Ok(match refiner {
                    None => made,
                    Some(refiner) => refiner.apply(&made, condition, seed.fork("refine"))?,
                })
            }
        }
    }
}

impl Opened {
    fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(DESCRIPTION);
        let damaged = |path: &Path, reason: String| Error::Given { path: path.to_owned(), reason };
        let description: Description = crate::stages::read_small_json(&path, MAX_DESCRIPTION_BYTES)?;
        if let Some(word) = description.rotary.as_deref().filter(|word| *word != weft_zoo::rotary_name(RopePairs::Halves)) {
            let reason =
                format!("its adapters have rows of queries and keys in the order `{word}`; `weft adapter train` makes it anew");
            return Err(damaged(&path, reason));
        }
        if description.version != VERSION {
            return Err(damaged(&path, format!("it is of version {}, and {VERSION} is read", description.version)));
        }
        let architecture = Arc::new(weft_zoo::read_architecture(&folder.join(ARCHITECTURE))?);
        family_of(&architecture)?;
        let file = weft_zoo::read_tensors(&folder.join(CODEC))?;
        let codec = Arc::new(Codec::from_tensors(file.tensors.into_iter().collect::<BTreeMap<_, _>>())?);
        if codec.dim() != architecture.num_parameters() {
            let reason = format!("its rows have {} values, an adapter has {}", codec.dim(), architecture.num_parameters());
            return Err(damaged(&folder.join(CODEC), reason));
        }
        let hyper = HyperDecoder::load(&read_artifact(&folder.join(HYPER))?, codec.clone(), architecture.clone(), &Device::cpu())?;
        let seen = read_artifact(&folder.join(SEEN))?;
        let len = hyper.schema().field(shown::FIELD).map_or(0, |field| field.kind.num_values()).max(1);
        let vectors = seen.vector(VECTORS, description.languages.len() * len)?;
        let codes = seen.vector(CODES, description.languages.len() * codec.code_len())?;
        let vectors = vectors.chunks_exact(len).map(<[f32]>::to_vec).collect();
        let reader = description.sentences.as_ref().map(|of| reader(&description, of, &architecture, &path)).transpose()?;
        Ok(Self { folder: folder.to_owned(), description, architecture, codec, vectors, codes, hyper, reader })
    }

    /// The vector of a sample, and how many bytes or sentences it has.
    fn vector(&self, sample: &[u8]) -> Result<(Vec<f32>, usize)> {
        let (Some(reader), Some(of)) = (&self.reader, &self.description.sentences) else {
            return Ok((weft_core::embed_bytes(sample), sample.len()));
        };
        let sentences = split(sample, of.shown)?;
        let tokens = sentences.iter().map(|sentence| reader.tokens(sentence)).collect::<Result<Vec<_>>>()?;
        let vectors = reader.vectors(&tokens)?;
        Ok((shown::moments(vectors.iter().map(Vec::as_slice)), sentences.len()))
    }

    /// The code of a training task's own adapter.
    fn code(&self, name: &str) -> Result<&[f32]> {
        let (k, names) = (self.codec.code_len(), &self.description.languages);
        if let Some(at) = names.iter().position(|known| known == name) {
            return Ok(&self.codes[at * k..(at + 1) * k]);
        }
        let nearest = names_like(name, names.iter().map(String::as_str));
        Err(Error::NotLearnt { name: name.to_owned(), generator: self.folder.clone(), nearest })
    }

    fn generator(&self, model: Model) -> Result<Made> {
        if model == Model::Hyper {
            return Ok(Made::Hyper(Box::new(self.hyper.clone())));
        }
        let path = self.folder.join(FLOW);
        if !path.is_file() {
            let reason = "the run had no `[generate.flow]`; take the hyper-decoder".to_owned();
            return Err(Error::Given { path, reason });
        }
        let sampler =
            SamplerConfig { sampler: Sampler::Heun, steps: self.description.sampler_steps.clamp(1, 10_000), guidance_scale: 1.0 };
        let saved = read_artifact(&path)?;
        let flow = Flow::load(&saved, self.codec.clone(), self.architecture.clone(), sampler, &Device::cpu())?;
        let path = self.folder.join(REFINER);
        let refiner = if path.is_file() {
            Some(Box::new(Refiner::load(&read_artifact(&path)?, self.codec.clone(), &Device::cpu())?))
        } else {
            None
        };
        Ok(Made::Flow(Box::new(flow), refiner))
    }

    /// What a user should know of a sample.
    fn notes(&self, (vector, count): (&[f32], usize), condition: &weft_core::Condition) -> Result<Vec<String>> {
        let far = self.hyper.schema().extrapolations(condition)?;
        let mut notes: Vec<String> = far.iter().map(ToString::to_string).collect();
        let cosines = baselines::cosines(&self.vectors, vector);
        if let Some((cosine, name)) = cosines.iter().zip(&self.description.languages).max_by(|a, b| a.0.total_cmp(b.0)) {
            let familiar = self.description.familiar;
            let kind = if self.reader.is_some() { "task" } else { "language" };
            if *cosine < familiar {
                notes.push(format!(
                    "extrapolating: the sample looks like no training {kind}; its cosine with the nearest, `{name}`, is {cosine:.3}, and 99 of 100 of them have {familiar:.3} or more with another"
                ));
            }
        }
        match &self.description.sentences {
            None if 2 * count < self.description.sample_bytes => {
                let learnt = self.description.sample_bytes;
                notes.push(format!("the sample has {count} bytes; the generator learnt from samples of {learnt}"));
            }
            Some(of) if 2 * count < of.count || (of.shown == ShownConfig::Names && count != of.count) => {
                let (name, learnt) = (of.shown.name(), of.count);
                notes.push(format!("the sample has {count} {name}; the generator learnt from {learnt} at a time"));
            }
            _ => {}
        }
        Ok(notes)
    }

    fn write(&self, made: &Population, (request, model): (&GenerateRequest, Model), outputs: &[PathBuf]) -> Result<Vec<String>> {
        if made.data().iter().any(|w| !w.is_finite()) {
            let expected = "finite numbers; nothing was written".to_owned();
            return Err(Error::Range { what: "the generated factors", expected, got: "some that are not".to_owned() });
        }
        let lora = family_of(&self.architecture)?;
        let sha256 = |file: &str| weft_zoo::sha256_of_file(&self.folder.join(file)).map(|sha| sha.to_string());
        let files: &[&str] = match model {
            Model::Hyper | Model::Ridge => &[HYPER],
            Model::Flow if self.folder.join(REFINER).is_file() => &[FLOW, REFINER],
            Model::Flow => &[FLOW],
        };
        let licence = &self.description.licence;
        let parent = |file: &&str| Ok(AdapterParent { name: (*file).to_owned(), sha256: sha256(file)?, licence: licence.clone() });
        let mut parents = files.iter().map(parent).collect::<Result<Vec<_>>>()?;
        let mut like = String::new();
        if let Some(Like { name, strength }) = &request.like {
            like = format!(", like {name} at strength {strength}");
            let name = format!("{name}: its code in {SEEN}");
            parents.push(AdapterParent { name, sha256: sha256(SEEN)?, licence: licence.clone() });
        }
        let sample = request.sample.as_ref().map_or_else(String::new, |sample| {
            format!(", a sample of {} bytes with the digest {}", sample.len(), weft_core::Digest::of_bytes(sample))
        });
        let configuration = format!(
            "# weft adapter generate, seed {}, {} adapters{like}{sample}\n{}",
            request.seed, request.count, self.description.configuration
        );
        let provenance = AdapterProvenance { parents, configuration, synthetic: true, tags: Vec::new() };
        let export = AdapterExport::new(AdapterProfile::Portable, &provenance);
        let write = |row: &[f32], output: &Path| -> Result<Vec<String>> {
            let weights = AdapterWeights::from_lora(&lora, row, Some(self.description.base.clone()));
            let rotary = self.description.rotary.as_deref().and_then(weft_zoo::rotary_from_name);
            let weights = weights.map_err(|fault| fault.at(output))?;
            let weights = AdapterWeights { rotary, metadata: task_type(rotary.is_some()), ..weights };
            Ok(weights.write(&export, output)?)
        };
        if let [output] = outputs {
            return write(made.row(0), output);
        }
        // All of them or none.
        let mut notes = Vec::new();
        weft_zoo::write_folder(&request.output, |folder| -> Result<()> {
            for (row, output) in made.rows().zip(outputs) {
                notes.extend(write(row, &folder.join(output.file_name().unwrap_or_default()))?);
            }
            Ok(())
        })?;
        Ok(notes)
    }
}

/// What reads the sentences that a generator is shown: the base of its run, which must be the same.
fn reader(
    description: &Description,
    of: &SentencesDescription,
    architecture: &Arc<Architecture>,
    path: &Path,
) -> Result<SentenceReader> {
    let damaged = |reason: String| Error::Given { path: path.to_owned(), reason };
    let config = AdapterRunConfig::parse(&description.configuration, "its configuration", &[]);
    let config = config.map_err(|error| damaged(error.to_string()))?;
    let AdapterTaskConfig::Intents(task) = &config.task else { return Err(damaged("its run was not of intents".to_owned())) };
    let [weights, tokenizer] = config.base.paths();
    let (base, digest) = read_base(&weights)?;
    let layout = AdapterLayout::of(&base, architecture.clone())?;
    let reader = SentenceReader::new(Adapters::new(base, layout, &Device::cpu())?, digest, &tokenizer, task.tokens)?;
    if reader.digest().to_string() == of.reader {
        return Ok(reader);
    }
    let (what, other) = (format!("the base `{}` with its tokenizer", weights.display()), "the generator".to_owned());
    Err(Error::Misfit { what, other, reason: "it learnt with another; WEFT_DATA names the folder that both are in".to_owned() })
}

/// The sentences of a sample: a line each; names, and what has one line, also between semicolons.
fn split(sample: &[u8], shown: ShownConfig) -> Result<Vec<&str>> {
    let refuse = |expected: String, got: String| Error::Range { what: "the sample that shows what to make", expected, got };
    let text = std::str::from_utf8(sample).map_err(|error| refuse("UTF-8".to_owned(), error.to_string()))?;
    let semicolons = shown == ShownConfig::Names || !text.trim().contains('\n');
    let parts = text.split(|c| c == '\n' || (semicolons && c == ';')).map(str::trim).filter(|part| !part.is_empty());
    let sentences: Vec<&str> = parts.take(MAX_SENTENCES + 1).collect();
    if (2..=MAX_SENTENCES).contains(&sentences.len()) {
        return Ok(sentences);
    }
    let got = if sentences.len() < 2 { sentences.len().to_string() } else { "more".to_owned() };
    Err(refuse(format!("2 to {MAX_SENTENCES} {}, a line each or between semicolons", shown.name()), got))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_split_into_sentences() {
        let check = |sample: &str, shown, expected: &[&str]| assert_eq!(split(sample.as_bytes(), shown).unwrap(), expected);
        check("freeze account; pin change;\n", ShownConfig::Names, &["freeze account", "pin change"]);
        check("a;b\nc", ShownConfig::Names, &["a", "b", "c"]);
        check("what; now\r\n\nhelp\n", ShownConfig::Utterances, &["what; now", "help"]);
        check("what; now", ShownConfig::Utterances, &["what", "now"]);
        let message = split(b"one", ShownConfig::Names).unwrap_err().to_string();
        assert!(message.contains("2 to 4096 names") && message.contains("got 1"), "{message}");
        assert!(split(b"\xff;a", ShownConfig::Names).unwrap_err().to_string().contains("UTF-8"));
        assert!(split("a\n".repeat(5_000).as_bytes(), ShownConfig::Names).is_err());
    }
}
