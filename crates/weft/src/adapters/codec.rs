//! Codecs of adapters on disk.
//!
//! ```text
//! CODEC/
//!   codec.safetensors   codes, spectra, and the adapters' inner products as sums of two numbers
//!   codec.json          what they are of: base, modules, adapters with digests; it is written last
//! ```
//!
//! A codec's basis is the adapters that it was fitted on, so decoding reads these again; their digests must be what they were.

use super::learn::quoted;
use super::merge::{WrittenView, write_each};
use super::zoo::AdapterZoo;
use crate::{Error, Monitor, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
pub use weft_codec::Rank;
pub use weft_codec::adapter::Per;
use weft_codec::adapter::{AdapterPca, Adapters, Combined, Grams, Module};
use weft_core::products::Here;

const TENSORS: &str = "codec.safetensors";
const DESCRIPTION: &str = "codec.json";
/// The tensors of the inner products: rounded to f32, and what that leaves.
const GRAMS: [&str; 2] = ["grams.high", "grams.low"];
/// The longest description that is read.
const MAX_DESCRIPTION_BYTES: u64 = 64 << 20;

/// A fitted codec with the adapters that it was fitted on.
#[derive(Debug)]
pub struct AdapterCodec {
    zoo: AdapterZoo,
    grams: Grams,
    pca: AdapterPca,
}

/// What a codec is of.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Description {
    version: u32,
    per: String,
    base: Option<String>,
    modules: Vec<ModuleEntry>,
    adapters: Vec<AdapterEntry>,
    kept_variance: f64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ModuleEntry {
    name: String,
    fan_out: usize,
    fan_in: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct AdapterEntry {
    name: String,
    path: PathBuf,
    sha256: String,
    /// What its settings say beside the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scalings: Option<String>,
}

/// What a codec keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CodecView {
    /// The folder.
    pub codec: PathBuf,
    /// `adapter` or `module`.
    pub per: String,
    /// The base model.
    pub base: Option<String>,
    /// The adapters that it was fitted on.
    pub adapters: Vec<String>,
    /// The modules of each.
    pub modules: usize,
    /// The length of a code.
    pub code_len: usize,
    /// The part of the updates' variance that codes keep.
    pub kept_variance: f64,
    /// What a user should know.
    pub notes: Vec<String>,
}

impl AdapterCodec {
    /// Fits a codec on adapters.
    ///
    /// # Errors
    /// As [`AdapterPca::fit`], or what reading returns.
    pub fn fit(zoo: AdapterZoo, (per, rank): (Per, Rank), monitor: &Monitor) -> Result<Self> {
        let grams = zoo.grams(&Here, monitor)?;
        let pca = AdapterPca::fit(&grams, per, rank)?;
        Ok(Self { zoo, grams, pca })
    }

    /// A codec whose products and components are known.
    pub(super) fn from_parts(zoo: AdapterZoo, grams: Grams, pca: AdapterPca) -> Self {
        Self { zoo, grams, pca }
    }

    /// The adapters that it was fitted on.
    #[must_use]
    pub fn zoo(&self) -> &AdapterZoo {
        &self.zoo
    }

    /// Their inner products.
    #[must_use]
    pub fn grams(&self) -> &Grams {
        &self.grams
    }

    /// Components and codes, `[n, k]`.
    #[must_use]
    pub fn pca(&self) -> &AdapterPca {
        &self.pca
    }

    /// Turns codes `[p, k]` into adapters of a rank with scaling 1.
    ///
    /// # Errors
    /// As [`AdapterPca::decode`].
    pub fn decode(&self, codes: &[f32], rank: usize, monitor: &Monitor) -> Result<Combined> {
        let reading = self.zoo.watched("decode adapters", 1, monitor);
        let made = self.pca.decode(codes, (&reading, Some(&self.grams)), (rank, 1.0))?;
        monitor.finish();
        Ok(made)
    }

    /// Writes the codec into a folder that is not there or empty.
    ///
    /// # Errors
    /// Something is there already, or it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        weft_zoo::refuse_existing(folder)?;
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let (n, m) = (self.grams.num_adapters(), self.grams.modules().len());
        let wide = (0..m).flat_map(|at| self.grams.module(at)).copied();
        let high: Vec<f32> = wide.clone().map(|x| x as f32).collect();
        let low: Vec<f32> = wide.zip(&high).map(|(x, &high)| (x - f64::from(high)) as f32).collect();
        let mut tensors = self.pca.to_tensors();
        tensors.extend(GRAMS.into_iter().zip([&high[..], &low]).map(|(name, values)| (name.to_owned(), vec![m, n, n], values)));
        weft_zoo::write_tensors(&folder.join(TENSORS), &tensors, &weft_zoo::Metadata::new())?;
        let module = |m: &Module| ModuleEntry { name: m.name.clone(), fan_out: m.fan_out, fan_in: m.fan_in };
        let entries = self.zoo.names().zip(self.zoo.paths()).zip(self.zoo.digests().zip(self.zoo.scalings()));
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let entry = |((name, path), (sha256, scalings)): ((&str, &Path), (weft_core::Sha256, weft_core::Digest))| AdapterEntry {
            name: name.to_owned(),
            path: absolute(path),
            sha256: sha256.to_string(),
            scalings: Some(scalings.to_string()),
        };
        let description = Description {
            version: 1,
            per: self.pca.per().name().to_owned(),
            base: self.zoo.base().map(ToOwned::to_owned),
            modules: self.zoo.modules().iter().map(module).collect(),
            adapters: entries.map(entry).collect(),
            kept_variance: self.pca.kept_variance(),
        };
        crate::stages::write_json(&folder.join(DESCRIPTION), &description)
    }

    /// Reads a codec and opens its adapters, where they were or by name in another folder.
    ///
    /// # Errors
    /// [`Error::Given`] for files that no codec has, [`Error::Adapter`] for an adapter that has changed, or as [`AdapterZoo::of`].
    pub fn load(folder: &Path, moved_to: Option<&Path>, monitor: &Monitor) -> Result<Self> {
        let path = folder.join(DESCRIPTION);
        let damaged = |reason: String| Error::Given { path: path.clone(), reason };
        let description: Description = crate::stages::read_small_json(&path, MAX_DESCRIPTION_BYTES)?;
        let per = match description.per.as_str() {
            "adapter" => Per::Adapter,
            "module" => Per::Module,
            other => return Err(damaged(format!("`per` is `{other}`"))),
        };
        if description.version != 1 {
            return Err(damaged(format!("it has version {}, and 1 is read", description.version)));
        }
        let place = |entry: &AdapterEntry| moved_to.map_or_else(|| entry.path.clone(), |folder| folder.join(&entry.name));
        let paths: Vec<PathBuf> = description.adapters.iter().map(place).collect();
        let zoo = AdapterZoo::of(&paths, monitor)?;
        for ((entry, found), path) in description.adapters.iter().zip(zoo.digests().zip(zoo.scalings())).zip(paths) {
            let changed = |what: &str| format!("its {what} are not those that the codec was fitted on");
            if found.0.to_string() != entry.sha256 {
                return Err(Error::Adapter { path, reason: changed("weights") });
            }
            if entry.scalings.as_ref().is_some_and(|scalings| *scalings != found.1.to_string()) {
                return Err(Error::Adapter { path, reason: changed("scalings (`lora_alpha`)") });
            }
        }
        let modules: Vec<Module> = zoo.modules().to_vec();
        let listed = description.modules.iter().map(|m| Module { name: m.name.clone(), fan_out: m.fan_out, fan_in: m.fan_in });
        if !listed.eq(modules.iter().cloned()) {
            return Err(damaged("its modules are not the adapters'".to_owned()));
        }
        let n = zoo.num_adapters();
        let mut tensors = weft_zoo::read_tensors(&folder.join(TENSORS))?.tensors;
        let [high, low] = GRAMS.map(|name| tensors.remove(name).filter(|(shape, _)| *shape == [modules.len(), n, n]));
        let (Some((_, high)), Some((_, low))) = (high, low) else {
            return Err(damaged(format!("`{TENSORS}` lacks the inner products of its adapters")));
        };
        if n < 2 || modules.is_empty() {
            return Err(damaged(format!("it says {n} adapters of {} modules", modules.len())));
        }
        let wide: Vec<f64> = high.iter().zip(&low).map(|(&high, &low)| f64::from(high) + f64::from(low)).collect();
        let grams = Grams::from_products(n, modules.clone(), wide.chunks(n * n).map(<[f64]>::to_vec).collect())?;
        let pca = AdapterPca::from_tensors((per, modules, n), tensors)?;
        Ok(Self { zoo, grams, pca })
    }

    fn view(&self, folder: &Path) -> CodecView {
        CodecView {
            codec: folder.to_owned(),
            per: self.pca.per().name().to_owned(),
            base: self.zoo.base().map(ToOwned::to_owned),
            adapters: self.zoo.names().map(ToOwned::to_owned).collect(),
            modules: self.zoo.modules().len(),
            code_len: self.pca.code_len(),
            kept_variance: self.pca.kept_variance(),
            notes: self.zoo.notes().to_vec(),
        }
    }
}

/// Components where it is not said how many, if there are so many.
const COMPONENTS: usize = 8;

/// Fits components, as many as there are of so many at most.
pub(super) fn fit_at_most(grams: &Grams, per: Per, components: usize) -> Result<AdapterPca> {
    let n = grams.num_adapters();
    Ok(match AdapterPca::fit(grams, per, Rank::Fixed(components.min(n.saturating_sub(1)))) {
        // Adapters with the same update have fewer.
        Err(weft_codec::Error::Rank { available, asked }) if asked > available && available > 0 => {
            AdapterPca::fit(grams, per, Rank::Fixed(available))?
        }
        fitted => fitted?,
    })
}

/// Fits a codec on the adapters of a folder and writes it: with so many components, or with eight, or as many as there are of fewer.
///
/// # Errors
/// As [`AdapterZoo::open`], [`AdapterCodec::fit`] and [`AdapterCodec::save`].
pub fn encode(folder: &Path, (per, rank): (Per, Option<Rank>), output: &Path, monitor: &Monitor) -> Result<CodecView> {
    weft_zoo::refuse_existing(output)?;
    let zoo = AdapterZoo::open(folder, monitor)?;
    let codec = if let Some(rank) = rank {
        AdapterCodec::fit(zoo, (per, rank), monitor)?
    } else {
        let grams = zoo.grams(&Here, monitor)?;
        let pca = fit_at_most(&grams, per, COMPONENTS)?;
        AdapterCodec::from_parts(zoo, grams, pca)
    };
    codec.save(output)?;
    Ok(codec.view(output))
}

/// Which codes to decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codes {
    /// Those of adapters that the codec was fitted on, by name.
    Of(Vec<String>),
    /// The tensor `codes` of a safetensors file, `[p, k]`.
    File(PathBuf),
    /// The code of the mean update: zeros.
    Mean,
}

/// What to decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeRequest {
    /// The codec's folder.
    pub codec: PathBuf,
    /// The folder that its adapters have moved to.
    pub adapters: Option<PathBuf>,
    /// The codes.
    pub codes: Codes,
    /// The rank of what is decoded; the largest of the adapters' if it is not said.
    pub rank: Option<usize>,
    /// The folder to write: an adapter, or of several codes one a folder in it.
    pub output: PathBuf,
}

impl DecodeRequest {
    /// The command that makes the adapters again.
    fn command(&self, rank: usize) -> Result<String> {
        let path = |path: &Path| quoted(&path.display().to_string());
        let mut command = format!("weft adapter decode {} --rank {rank}", path(&self.codec));
        match &self.codes {
            Codes::Mean => command.push_str(" --mean"),
            Codes::Of(names) => command.extend(names.iter().map(|name| format!(" --adapter {}", quoted(name)))),
            Codes::File(file) => {
                let sha256 = weft_zoo::sha256_of_file(file)?;
                command.extend([" --file ", &path(file), " # ", &sha256.to_string()]);
            }
        }
        Ok(command)
    }
}

/// Decodes codes and writes the adapters as folders of PEFT that every runtime takes.
///
/// # Errors
/// As [`AdapterCodec::load`] and [`AdapterPca::decode`]; [`Error::NoAdapter`] for a name that the codec does not know; or a folder that
/// is there already.
pub fn decode(request: &DecodeRequest, monitor: &Monitor) -> Result<WrittenView> {
    weft_zoo::refuse_existing(&request.output)?;
    let codec = AdapterCodec::load(&request.codec, request.adapters.as_deref(), monitor)?;
    let k = codec.pca.code_len();
    let codes = match &request.codes {
        Codes::Mean => vec![0.0; k],
        Codes::Of(names) => {
            let mut codes = Vec::with_capacity(names.len() * k);
            for name in names {
                let at = codec.zoo.names().position(|own| own == name).ok_or_else(|| Error::NoAdapter { name: name.clone() })?;
                codes.extend_from_slice(&codec.pca.codes()[at * k..(at + 1) * k]);
            }
            codes
        }
        Codes::File(path) => {
            let damaged = |reason: String| Error::Given { path: path.clone(), reason };
            let found = weft_zoo::read_tensors(path)?.tensors.remove("codes");
            let (shape, codes) = found.ok_or_else(|| damaged("it has no tensor `codes`".to_owned()))?;
            if shape.len() != 2 || shape[1] != k {
                return Err(damaged(format!("`codes` has shape {shape:?}, and codes have {k} values")));
            }
            if codes.is_empty() {
                return Err(damaged("`codes` has no row".to_owned()));
            }
            if let Some(at) = codes.iter().position(|z| !z.is_finite()) {
                return Err(damaged(format!("code {} holds a value that is not finite", at / k)));
            }
            codes
        }
    };
    let rank = request.rank.unwrap_or_else(|| codec.zoo.max_rank().max(1));
    let made = codec.decode(&codes, rank, monitor)?;
    let configuration = request.command(rank)?;
    let view = write_each((&codec.zoo, &made.adapters, &made.lost), (&configuration, true), &request.output)?;
    let notes = codec.zoo.notes().iter().cloned().chain(view.notes).collect();
    Ok(WrittenView { notes, ..view })
}
