//! Generators of adapters on disk, and adapters made with them.
//!
//! ```text
//! generator/
//!   generator.json        base, licence, and the training languages by name
//!   architecture.toml     what an adapter is
//!   codec.safetensors     codes ⇄ factors
//!   hyper.safetensors     the hyper-decoder
//!   flow.safetensors      the flow, if the run had one
//!   seen.safetensors      of each training language the sum of its samples' vectors, and the code of its own adapter
//! ```

use super::super::merge::refuse_existing;
use super::super::train::family_of;
use super::{baselines, shown};
use crate::stages::{read_artifact, write_artifact};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft_codec::Codec;
use weft_core::{Architecture, Population, RopePairs, Seed};
use weft_gen::{Artifact, Flow, Generator, HyperDecoder, Sampler, SamplerConfig};
use weft_net::Device;
use weft_zoo::adapter::{AdapterExport, AdapterParent, AdapterProfile, AdapterProvenance, AdapterWeights};

const DESCRIPTION: &str = "generator.json";
const ARCHITECTURE: &str = "architecture.toml";
const CODEC: &str = "codec.safetensors";
const HYPER: &str = "hyper.safetensors";
const FLOW: &str = "flow.safetensors";
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
    languages: Vec<String>,
    configuration: String,
}

/// Trained generators, to be written.
pub(in super::super) struct Stored {
    pub(super) codec: Arc<Codec>,
    pub(super) hyper: HyperDecoder,
    pub(super) flow: Option<Flow>,
    pub(super) names: Vec<String>,
    pub(super) vectors: Vec<Vec<f32>>,
    pub(super) familiar: f64,
    /// Codes of the training languages' own adapters, `[n, k]`.
    pub(super) codes: Vec<f32>,
    pub(super) rotary: Option<RopePairs>,
}

impl Stored {
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
        };
        crate::stages::write_json(&folder.join(DESCRIPTION), &description)?;
        weft_zoo::write_atomic(&folder.join(ARCHITECTURE), weft_zoo::architecture_to_toml(architecture).as_bytes())?;
        weft_zoo::write_tensors(&folder.join(CODEC), &self.codec.to_tensors(), &weft_zoo::Metadata::new())?;
        write_artifact(&folder.join(HYPER), &self.hyper.save())?;
        if let Some(flow) = &self.flow {
            write_artifact(&folder.join(FLOW), &flow.save())?;
        }
        let seen = Artifact::default().with_vector(VECTORS, &self.vectors.concat()).with_vector(CODES, &self.codes);
        write_artifact(&folder.join(SEEN), &seen)
    }
}

/// Which of a run's generators makes adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Model {
    /// One adapter for a sample, in one pass.
    #[default]
    Hyper,
    /// The flow: any number of them.
    Flow,
}

/// What to make.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// The folder `generator` of a run.
    pub generator: PathBuf,
    /// Text that shows what the adapter is for.
    pub sample: Vec<u8>,
    /// Which generator.
    pub model: Model,
    /// How many.
    pub count: usize,
    /// The seed.
    pub seed: u64,
    /// A training language whose adapter it is to be near, if any.
    pub like: Option<Like>,
    /// The folder to write: an adapter, or of several one a folder in it.
    pub output: PathBuf,
}

/// An adapter of training that others are made near.
#[derive(Debug, Clone, PartialEq)]
pub struct Like {
    /// The training language's name.
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
    /// The training languages that look most like the sample, the nearest first.
    pub nearest: Vec<String>,
    /// Milliseconds from the sample to all factors, the generator's files not counted.
    pub millis: f64,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// Makes adapters from a sample of text, each a folder of PEFT that every runtime takes.
///
/// # Errors
/// A folder that is no generator or is damaged, an empty sample or one that is too long, several adapters of a hyper-decoder, which makes one,
/// a name that is no training language's, a strength that is no part, factors that are not finite, or an output that is there already.
pub fn generate(request: &GenerateRequest) -> Result<MadeView> {
    refuse_existing(&request.output)?;
    let within = |what, expected: &str, ok: bool, got: String| {
        if ok { Ok(()) } else { Err(Error::Range { what, expected: expected.to_owned(), got }) }
    };
    let (bytes, count) = (request.sample.len(), request.count);
    let blank = request.sample.iter().all(u8::is_ascii_whitespace);
    within("the sample that shows what to make", "some text", !blank, "nothing but white space".to_owned())?;
    within("the sample that shows what to make", "at most 1 MiB", bytes <= MAX_SAMPLE, format!("{bytes} bytes"))?;
    within("the number of adapters", "between 1 and 10000", (1..=MAX_COUNT).contains(&count), count.to_string())?;
    let one = request.model == Model::Flow || count == 1;
    within("the number of adapters of a hyper-decoder", "1: it makes the same for the same sample", one, count.to_string())?;
    let strength = request.like.as_ref().map_or(0.0, |like| like.strength);
    let part = (0.0..=1.0).contains(&strength);
    within("`--strength`", "between 0 (the training adapter) and 1 (a fresh sample)", part, strength.to_string())?;
    let opened = Opened::open(&request.generator)?;
    let near = match &request.like {
        Some(like) => Some((opened.code(&like.name)?, like.strength)),
        None => None,
    };
    let generator = opened.generator(request.model)?;
    let started = std::time::Instant::now();
    let condition = shown::shown(&request.sample);
    let seed = Seed::new(request.seed);
    let made = match (&generator, near) {
        (Made::Hyper(hyper), None) => hyper.sample(count, &condition, seed)?,
        (Made::Hyper(hyper), Some(near)) => hyper.sample_near(near, &condition)?,
        (Made::Flow(flow), None) => flow.sample(count, &condition, seed)?,
        (Made::Flow(flow), Some(near)) => flow.sample_near(near, count, &condition, seed)?,
    };
    let millis = started.elapsed().as_secs_f64() * 1e3;
    let mut notes = opened.notes(&request.sample, &condition)?;
    let outputs: Vec<PathBuf> = match count {
        1 => vec![request.output.clone()],
        _ => (0..count).map(|i| request.output.join(format!("{i:04}"))).collect(),
    };
    for note in opened.write(&made, request, &outputs)? {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    let order = baselines::nearest(&opened.vectors, &request.sample);
    let nearest = order.into_iter().take(3).map(|i| opened.description.languages[i].clone()).collect();
    Ok(MadeView { written: outputs, nearest, millis, notes })
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
}

/// A generator that was opened.
enum Made {
    Hyper(Box<HyperDecoder>),
    Flow(Box<Flow>),
}

impl Opened {
    fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(DESCRIPTION);
        let damaged = |path: &Path, reason: String| Error::Damaged { path: path.to_owned(), reason };
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
        let seen = read_artifact(&folder.join(SEEN))?;
        let n = description.languages.len();
        let vectors = seen.vector(VECTORS, n * weft_core::BYTES_LEN)?;
        let vectors = vectors.chunks_exact(weft_core::BYTES_LEN).map(<[f32]>::to_vec).collect();
        let codes = seen.vector(CODES, n * codec.code_len())?;
        let hyper = HyperDecoder::load(&read_artifact(&folder.join(HYPER))?, codec.clone(), architecture.clone(), &Device::cpu())?;
        Ok(Self { folder: folder.to_owned(), description, architecture, codec, vectors, codes, hyper })
    }

    /// The code of a training language's own adapter.
    fn code(&self, name: &str) -> Result<&[f32]> {
        let (k, names) = (self.codec.code_len(), &self.description.languages);
        if let Some(at) = names.iter().position(|known| known == name) {
            return Ok(&self.codes[at * k..(at + 1) * k]);
        }
        let mut nearest: Vec<&String> = names.iter().collect();
        nearest.sort_by_key(|known| (strsim::damerau_levenshtein(name, known), known.as_str()));
        let nearest = nearest.into_iter().take(NEAREST_NAMES).cloned().collect();
        Err(Error::NotLearnt { name: name.to_owned(), generator: self.folder.clone(), nearest })
    }

    fn generator(&self, model: Model) -> Result<Made> {
        if model == Model::Hyper {
            return Ok(Made::Hyper(Box::new(self.hyper.clone())));
        }
        let path = self.folder.join(FLOW);
        if !path.is_file() {
            let reason = "the run had no `[generate.flow]`; take the hyper-decoder".to_owned();
            return Err(Error::Damaged { path, reason });
        }
        let sampler =
            SamplerConfig { sampler: Sampler::Heun, steps: self.description.sampler_steps.clamp(1, 10_000), guidance_scale: 1.0 };
        let saved = read_artifact(&path)?;
        let flow = Flow::load(&saved, self.codec.clone(), self.architecture.clone(), sampler, &Device::cpu())?;
        Ok(Made::Flow(Box::new(flow)))
    }

    /// What a user should know of a sample.
    fn notes(&self, sample: &[u8], condition: &weft_core::Condition) -> Result<Vec<String>> {
        let far = self.hyper.schema().extrapolations(condition)?;
        let mut notes: Vec<String> = far.iter().map(ToString::to_string).collect();
        let cosines = baselines::cosines(&self.vectors, sample);
        if let Some((cosine, name)) = cosines.iter().zip(&self.description.languages).max_by(|a, b| a.0.total_cmp(b.0)) {
            let familiar = self.description.familiar;
            if *cosine < familiar {
                notes.push(format!(
                    "extrapolating: the sample looks like no training language; its cosine with the nearest, `{name}`, is {cosine:.3}, and 99 of 100 of them have {familiar:.3} or more with another"
                ));
            }
        }
        if 2 * sample.len() < self.description.sample_bytes {
            let learnt = self.description.sample_bytes;
            notes.push(format!("the sample has {} bytes; the generator learnt from samples of {learnt}", sample.len()));
        }
        Ok(notes)
    }

    fn write(&self, made: &Population, request: &GenerateRequest, outputs: &[PathBuf]) -> Result<Vec<String>> {
        if made.data().iter().any(|w| !w.is_finite()) {
            let expected = "finite numbers; nothing was written".to_owned();
            return Err(Error::Range { what: "the generated factors", expected, got: "some that are not".to_owned() });
        }
        let lora = family_of(&self.architecture)?;
        let sha256 = |file: &str| weft_zoo::sha256_of_file(&self.folder.join(file)).map(|sha| sha.to_string());
        let file = if request.model == Model::Hyper { HYPER } else { FLOW };
        let parent = AdapterParent { name: file.to_owned(), sha256: sha256(file)?, licence: self.description.licence.clone() };
        let mut parents = vec![parent];
        let mut like = String::new();
        if let Some(Like { name, strength }) = &request.like {
            like = format!(", like {name} at strength {strength}");
            let name = format!("{name}: its code in {SEEN}");
            parents.push(AdapterParent { name, sha256: sha256(SEEN)?, licence: self.description.licence.clone() });
        }
        let digest = weft_core::Digest::of_bytes(&request.sample);
        let configuration = format!(
            "# weft adapter generate, seed {}, {} adapters{like}, a sample of {} bytes with the digest {digest}\n{}",
            request.seed,
            request.count,
            request.sample.len(),
            self.description.configuration
        );
        let provenance = AdapterProvenance { parents, configuration, synthetic: true, tags: Vec::new() };
        let export = AdapterExport {
            profile: AdapterProfile::Portable,
            base: None,
            component: None,
            of_pipeline: false,
            provenance: &provenance,
        };
        if let [_, _, ..] = outputs {
            std::fs::create_dir_all(&request.output).map_err(Error::io("create", &request.output))?;
        }
        let mut notes = Vec::new();
        for (row, output) in made.rows().zip(outputs) {
            let weights = AdapterWeights::from_lora(&lora, row, Some(self.description.base.clone()));
            let rotary = self.description.rotary.as_deref().and_then(weft_zoo::rotary_from_name);
            let weights = AdapterWeights { rotary, ..weights.map_err(|fault| fault.at(output))? };
            notes.extend(weights.write(&export, output)?);
        }
        Ok(notes)
    }
}
