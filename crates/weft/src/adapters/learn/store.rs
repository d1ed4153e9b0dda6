//! Generators of updates on disk, and adapters made with them.
//!
//! ```text
//! GENERATOR/
//!   learnt.json          encoder, descriptions, settings, and the check on adapters that were left out; it is written last
//!   codec/               inner products, components and codes of the adapters, as `weft adapter encode` writes them
//!   ridge.safetensors    from vectors of descriptions to weights of the adapters
//!   flow.safetensors     the flow on codes
//!   seen.safetensors     of each adapter the mean of its descriptions' vectors
//! ```
//!
//! What is made is a combination of the adapters that the generator was learnt from, so these are read again; their digests must be what they were.

use super::super::codec::AdapterCodec;
use super::super::generate::{GenerateRequest, Like, MadeView, Model, names_like, nearest, shown};
use super::super::merge;
use super::check::CheckView;
use super::codes::{CodeModels, sampler};
use super::quoted;
use super::words::{StoredEncoder, Words};
use crate::stages::{read_artifact, write_artifact};
use crate::{Error, Monitor, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weft_codec::adapter::{Adapters as _, Combined, UpdateRidge, combine};
use weft_core::{Condition, Seed};
use weft_gen::{Artifact, CodeFlow};
use weft_net::Device;

const DESCRIPTION: &str = "learnt.json";
const CODEC: &str = "codec";
const RIDGE: &str = "ridge.safetensors";
const FLOW: &str = "flow.safetensors";
const SEEN: &str = "seen.safetensors";
/// What is there beside the codec; the flow need not be.
const FILES: [&str; 3] = [RIDGE, FLOW, SEEN];
/// The tensor in [`SEEN`].
const VECTORS: &str = "vectors";
/// The longest description that is read.
const MAX_DESCRIPTION_BYTES: u64 = 256 << 20;
/// The longest text that a command tells, in bytes.
const MAX_TOLD: usize = 400;
/// The most steps from noise to a code.
const MAX_SAMPLER_STEPS: usize = 10_000;
/// The version of the folder's format.
const VERSION: u32 = 1;

/// `learnt.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Description {
    pub(super) version: u32,
    pub(super) encoder: StoredEncoder,
    /// What is said of each adapter, in the codec's order.
    pub(super) descriptions: Vec<Vec<String>>,
    /// Cosines below this with the nearest description are less than what all but the least hundredth of adapters have with another's.
    pub(super) familiar: f64,
    pub(super) sampler_steps: usize,
    /// SHA-256 of the files beside this one, by their names.
    pub(super) files: BTreeMap<String, String>,
    /// The command that makes the folder again.
    pub(super) configuration: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) check: Option<CheckView>,
}

impl Description {
    pub(super) fn new(encoder: StoredEncoder, descriptions: Vec<Vec<String>>, configuration: String) -> Self {
        Self {
            version: VERSION,
            encoder,
            descriptions,
            familiar: -1.0,
            sampler_steps: 1,
            files: BTreeMap::new(),
            configuration,
            check: None,
        }
    }
}

impl Description {
    /// What is wrong with it.
    fn check(&self, folder: &Path) -> Result<(), String> {
        if !(1..=MAX_SAMPLER_STEPS).contains(&self.sampler_steps) {
            return Err(format!("`sampler-steps` is {}, and 1 to {MAX_SAMPLER_STEPS} are taken", self.sampler_steps));
        }
        if !(-1.0..=1.0).contains(&self.familiar) {
            return Err(format!("`familiar` is {:e}, and a cosine is between -1 and 1", self.familiar));
        }
        for name in FILES.iter().filter(|name| **name != FLOW || folder.join(name).exists()) {
            let found = weft_zoo::sha256_of_file(&folder.join(name)).map_err(|error| error.to_string())?.to_string();
            if self.files.get(*name) != Some(&found) {
                return Err(format!("`{name}` is not the file that was written with it"));
            }
        }
        Ok(())
    }
}

/// Whether a folder is a generator of updates.
pub(in super::super) fn is_one(folder: &Path) -> bool {
    folder.join(DESCRIPTION).is_file()
}

/// Writes a generator into a folder that is made.
pub(super) fn write(
    folder: &Path,
    (codec, models): (&AdapterCodec, &CodeModels),
    (means, description): (&[Vec<f32>], Description),
) -> Result<()> {
    codec.save(&folder.join(CODEC))?;
    let tensors = models.ridge.to_tensors();
    let tensors: Vec<_> = tensors.iter().map(|(name, shape, values)| ((*name).to_owned(), shape.clone(), &values[..])).collect();
    weft_zoo::write_tensors(&folder.join(RIDGE), &tensors, &weft_zoo::Metadata::new())?;
    if let Some(flow) = &models.flow {
        write_artifact(&folder.join(FLOW), &flow.save())?;
    }
    write_artifact(&folder.join(SEEN), &Artifact::default().with_vector(VECTORS, &means.concat()))?;
    let mut files = BTreeMap::new();
    for name in FILES.iter().filter(|name| folder.join(name).is_file()) {
        files.insert((*name).to_owned(), weft_zoo::sha256_of_file(&folder.join(name))?.to_string());
    }
    crate::stages::write_json(&folder.join(DESCRIPTION), &Description { files, ..description })
}

/// A generator's folder, read and checked.
struct Opened {
    folder: PathBuf,
    description: Description,
    words: Words,
    codec: AdapterCodec,
    means: Vec<Vec<f32>>,
    ridge: UpdateRidge,
}

impl Opened {
    fn open(request: &GenerateRequest, monitor: &Monitor) -> Result<Self> {
        let folder = &request.generator;
        let path = folder.join(DESCRIPTION);
        let damaged = |path: &Path, reason: String| Error::Given { path: path.to_owned(), reason };
        let description: Description = crate::stages::read_small_json(&path, MAX_DESCRIPTION_BYTES)?;
        if description.version != VERSION {
            return Err(damaged(&path, format!("it is of version {}, and {VERSION} is read", description.version)));
        }
        description.check(folder).map_err(|reason| damaged(&path, reason))?;
        let words = Words::again(&description.encoder, request.encoder.as_deref())?;
        let codec = AdapterCodec::load(&folder.join(CODEC), request.adapters.as_deref(), monitor)?;
        let n = codec.zoo().num_adapters();
        if description.descriptions.len() != n {
            return Err(damaged(&path, format!("it describes {} adapters of {n}", description.descriptions.len())));
        }
        let len = words.vector(b"a")?.len();
        let means = read_artifact(&folder.join(SEEN))?.vector(VECTORS, n * len)?;
        let means = means.chunks_exact(len).map(<[f32]>::to_vec).collect();
        let tensors = weft_zoo::read_tensors(&folder.join(RIDGE))?.tensors.into_iter().collect();
        let ridge = UpdateRidge::from_tensors(n, tensors)?;
        if ridge.num_features() != len {
            let reason = format!("it reads {} features, and descriptions have {len}", ridge.num_features());
            return Err(damaged(&folder.join(RIDGE), reason));
        }
        Ok(Self { folder: folder.clone(), description, words, codec, means, ridge })
    }

    /// The number of an adapter.
    fn adapter(&self, name: &str) -> Result<usize> {
        let found = self.codec.zoo().names().position(|own| own == name);
        found.ok_or_else(|| {
            let nearest = names_like(name, self.codec.zoo().names());
            Error::NotLearnt { name: name.to_owned(), generator: self.folder.clone(), nearest }
        })
    }

    fn ridge(&self, vector: Option<&[f32]>, near: Option<(usize, f64)>, rank: usize, monitor: &Monitor) -> Result<Combined> {
        // Of nothing that is told, the mean.
        let n = self.means.len();
        let mut weights = vector.map_or_else(|| vec![1.0 / n as f64; n], |vector| self.ridge.weights(vector));
        if let Some((at, strength)) = near {
            for weight in &mut weights {
                *weight *= strength;
            }
            weights[at] += 1.0 - strength;
        }
        let reading = self.codec.zoo().watched("combine adapters", 1, monitor);
        let made = combine(&reading, Some(self.codec.grams()), (1, &|_, _| weights.clone()), (rank, 1.0))?;
        monitor.finish();
        Ok(made)
    }

    fn flow(
        &self,
        (count, near): (usize, Option<(usize, f64)>),
        vector: Option<Vec<f32>>,
        (rank, seed): (usize, Seed),
        monitor: &Monitor,
    ) -> Result<Combined> {
        let (pca, steps) = (self.codec.pca(), self.description.sampler_steps);
        let k = pca.code_len();
        let flow = CodeFlow::load(&read_artifact(&self.folder.join(FLOW))?, k, sampler(steps), &Device::cpu())?;
        let condition = vector.map_or_else(Condition::unknown, shown::shown);
        let codes = match near {
            None => flow.sample_codes(count, &condition, seed)?,
            Some((at, strength)) => {
                let code = &pca.codes()[at * k..(at + 1) * k];
                flow.sample_codes_near((code, strength), count, &condition, seed)?
            }
        };
        if codes.iter().any(|z| !z.is_finite()) {
            let expected = "finite numbers; nothing was written".to_owned();
            return Err(Error::Range { what: "the generated codes", expected, got: "some that are not".to_owned() });
        }
        self.codec.decode(&codes, rank, monitor)
    }

    /// What is to be said of a text.
    fn notes(&self, cosines: &[f64], nearest: &[String]) -> Vec<String> {
        let mut notes = self.codec.zoo().notes().to_vec();
        let n = self.codec.zoo().num_adapters();
        if n < 8 && notes.iter().all(|note| !note.contains("interpolate")) {
            notes.push(format!("of {n} adapters a generator can only interpolate between these"));
        }
        let familiar = self.description.familiar;
        if let (Some(cosine), Some(name)) = (cosines.first(), nearest.first())
            && *cosine < familiar
        {
            notes.push(format!(
                "extrapolating: the text is like no description; its cosine with the nearest, that of `{name}`, is {cosine:.3}, and 99 of 100 descriptions have {familiar:.3} or more with another's"
            ));
        }
        notes
    }
}

/// Makes adapters of a text, each a folder of PEFT that every runtime takes.
pub(in super::super) fn generate(request: &GenerateRequest, monitor: &Monitor) -> Result<MadeView> {
    let opened = Opened::open(request, monitor)?;
    let model = request.model.unwrap_or(Model::Ridge);
    if model == Model::Hyper {
        let expected = "`ridge` or `flow`: it learnt of updates alone, and has no hyper-decoder".to_owned();
        return Err(Error::Range { what: "the model of this generator", expected, got: "`hyper`".to_owned() });
    }
    let near = match &request.like {
        Some(like) => Some((opened.adapter(&like.name)?, like.strength)),
        None => None,
    };
    let rank = request.rank.unwrap_or_else(|| opened.codec.zoo().max_rank().max(1));
    let started = std::time::Instant::now();
    let zoo = opened.codec.zoo();
    let vector = request.sample.as_ref().map(|sample| opened.words.vector(sample)).transpose()?;
    let name = |at: usize| zoo.names().nth(at).unwrap_or_default().to_owned();
    let (nearest, cosines) = vector.as_ref().map(|vector| nearest(&opened.means, vector, name)).unwrap_or_default();
    let mut notes = opened.notes(&cosines, &nearest);
    let made = match model {
        Model::Flow => opened.flow((request.count, near), vector, (rank, Seed::new(request.seed)), monitor)?,
        _ => opened.ridge(vector.as_deref(), near, rank, monitor)?,
    };
    let millis = started.elapsed().as_secs_f64() * 1e3;
    let configuration = configuration(request, &opened.description.configuration, rank);
    let view = merge::write_each((zoo, &made.adapters, &made.lost), (&configuration, true), &request.output)?;
    for (path, lost) in view.written.iter().zip(&view.lost).filter(|(_, lost)| **lost > 0.1) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        notes.push(format!("`{name}`: truncation to rank {rank} lost {:.1} % of the energy; see `--rank`", lost * 100.0));
    }
    notes.extend(view.notes);
    Ok(MadeView { written: view.written, nearest, cosines, millis, notes })
}

/// The command that makes an adapter again, but for a long text, of which there is the digest.
fn configuration(request: &GenerateRequest, learnt: &str, rank: usize) -> String {
    let path = |path: &Path| quoted(&path.display().to_string());
    let model = if request.model == Some(Model::Flow) { "flow" } else { "ridge" };
    let mut command = format!(
        "weft adapter generate --generator {} --model {model} -n {} --seed {} --rank {rank}",
        path(&request.generator),
        request.count,
        request.seed
    );
    if let Some(Like { name, strength }) = &request.like {
        command.extend([" --like ", &quoted(name), " --strength ", &strength.to_string()]);
    }
    for (option, folder) in [("--adapters", &request.adapters), ("--encoder", &request.encoder)] {
        command.extend(folder.iter().map(|folder| format!(" {option} {}", path(folder))));
    }
    let mut digest = String::new();
    if let Some(sample) = &request.sample {
        match std::str::from_utf8(sample) {
            Ok(text) if text.len() <= MAX_TOLD && !text.contains('\n') => command.extend([" --prompt ", &quoted(text)]),
            _ => command.push_str(" --examples FILE"),
        }
        digest = format!("the text has the digest {}; ", weft_core::Digest::of_bytes(sample));
    }
    format!("{command} -o {}\n# {digest}the generator: {learnt}", path(&request.output))
}
