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
use super::super::generate::{GenerateRequest, MadeView, Model, baselines, shown};
use super::super::merge;
use super::check::CheckView;
use super::codes::{CodeModels, sampler};
use super::words::{StoredEncoder, Words};
use crate::stages::{read_artifact, write_artifact};
use crate::{Error, Monitor, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use weft_codec::adapter::{Adapters as _, Combined, UpdateRidge, combine};
use weft_core::Seed;
use weft_gen::{Artifact, CodeFlow};
use weft_net::Device;

const DESCRIPTION: &str = "learnt.json";
const CODEC: &str = "codec";
const RIDGE: &str = "ridge.safetensors";
const FLOW: &str = "flow.safetensors";
const SEEN: &str = "seen.safetensors";
/// The tensor in [`SEEN`].
const VECTORS: &str = "vectors";
/// The longest description that is read.
const MAX_DESCRIPTION_BYTES: u64 = 256 << 20;
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
    /// The command that makes the folder again.
    pub(super) configuration: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) check: Option<CheckView>,
}

impl Description {
    pub(super) fn new(encoder: StoredEncoder, descriptions: Vec<Vec<String>>, configuration: String) -> Self {
        Self { version: VERSION, encoder, descriptions, familiar: -1.0, sampler_steps: 1, configuration, check: None }
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
    (means, description): (&[Vec<f32>], &Description),
) -> Result<()> {
    codec.save(&folder.join(CODEC))?;
    let tensors = models.ridge.to_tensors();
    let tensors: Vec<_> = tensors.iter().map(|(name, shape, values)| ((*name).to_owned(), shape.clone(), &values[..])).collect();
    weft_zoo::write_tensors(&folder.join(RIDGE), &tensors, &weft_zoo::Metadata::new())?;
    if let Some(flow) = &models.flow {
        write_artifact(&folder.join(FLOW), &flow.save())?;
    }
    write_artifact(&folder.join(SEEN), &Artifact::default().with_vector(VECTORS, &means.concat()))?;
    crate::stages::write_json(&folder.join(DESCRIPTION), description)
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
        let damaged = |path: &Path, reason: String| Error::Damaged { path: path.to_owned(), reason };
        let description: Description = crate::stages::read_small_json(&path, MAX_DESCRIPTION_BYTES)?;
        if description.version != VERSION {
            return Err(damaged(&path, format!("it is of version {}, and {VERSION} is read", description.version)));
        }
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
        found.ok_or_else(|| Error::NoAdapter { name: name.to_owned() })
    }

    fn ridge(&self, vector: &[f32], near: Option<(usize, f64)>, rank: usize) -> Result<Combined> {
        let mut weights = self.ridge.weights(vector);
        if let Some((at, strength)) = near {
            weights.iter_mut().for_each(|w| *w *= strength);
            weights[at] += 1.0 - strength;
        }
        let (zoo, grams) = (self.codec.zoo(), self.codec.grams());
        combine(zoo, Some(grams), (1, &|_, _| weights.clone()), (rank, 1.0))
    }

    fn flow(&self, (count, near): (usize, Option<(usize, f64)>), vector: Vec<f32>, rank: usize, seed: Seed) -> Result<Combined> {
        let (pca, steps) = (self.codec.pca(), self.description.sampler_steps);
        let k = pca.code_len();
        let flow = CodeFlow::load(&read_artifact(&self.folder.join(FLOW))?, k, sampler(steps), &Device::cpu())?;
        let condition = shown::shown(vector);
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
        self.codec.decode(&codes, rank, &Monitor::silent())
    }

    /// What is to be said of a text.
    fn notes(&self, vector: &[f32], order: &[usize]) -> Vec<String> {
        let mut notes = self.codec.zoo().notes().to_vec();
        let n = self.codec.zoo().num_adapters();
        if n < 8 && notes.iter().all(|note| !note.contains("interpolate")) {
            notes.push(format!("of {n} adapters a generator can only interpolate between these"));
        }
        let cosine = order.first().map_or(-1.0, |&at| baselines::cosines(&self.means[at..=at], vector)[0]);
        let familiar = self.description.familiar;
        if cosine < familiar {
            let name = order.first().and_then(|&at| self.codec.zoo().names().nth(at)).unwrap_or_default();
            notes.push(format!(
                "extrapolating: the text is like no description; its cosine with the nearest, that of `{name}`, is {cosine:.3}, and 99 of 100 descriptions have {familiar:.3} or more with another's"
            ));
        }
        notes
    }
}

/// Makes adapters of a text, each a folder of PEFT that every runtime takes.
pub(in super::super) fn generate(request: &GenerateRequest) -> Result<MadeView> {
    let monitor = Monitor::silent();
    let opened = Opened::open(request, &monitor)?;
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
    let vector = opened.words.vector(&request.sample)?;
    let order = baselines::nearest(&opened.means, &vector);
    let mut notes = opened.notes(&vector, &order);
    let made = match model {
        Model::Flow => opened.flow((request.count, near), vector, rank, Seed::new(request.seed))?,
        _ => opened.ridge(&vector, near, rank)?,
    };
    let millis = started.elapsed().as_secs_f64() * 1e3;
    let configuration = configuration(request, &opened.description.configuration, rank);
    let zoo = opened.codec.zoo();
    let view = merge::write_each((zoo, &made.adapters, &made.lost), (&configuration, true), &request.output)?;
    for (path, lost) in view.written.iter().zip(&view.lost).filter(|(_, lost)| **lost > 0.1) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        notes.push(format!("`{name}`: truncation to rank {rank} lost {:.1} % of the energy; see `--rank`", lost * 100.0));
    }
    notes.extend(view.notes);
    let nearest = order.into_iter().take(3).filter_map(|at| zoo.names().nth(at)).map(str::to_owned).collect();
    Ok(MadeView { written: view.written, nearest, millis, notes })
}

/// The command that makes an adapter again.
fn configuration(request: &GenerateRequest, learnt: &str, rank: usize) -> String {
    let model = if request.model == Some(Model::Flow) { "flow" } else { "ridge" };
    let like = request.like.as_ref().map_or_else(String::new, |like| format!(" --like {} --strength {}", like.name, like.strength));
    let text = String::from_utf8_lossy(&request.sample);
    let text = if text.len() <= 400 { format!(" --prompt {text:?}") } else { String::new() };
    let digest = weft_core::Digest::of_bytes(&request.sample);
    let generator = request.generator.display();
    format!(
        "weft adapter generate --generator {generator} --model {model} -n {} --seed {} --rank {rank}{like}{text}\n# the text has the digest {digest}; the generator: {learnt}",
        request.count, request.seed
    )
}
