//! Adapters into the files that their tools load.
//!
//! Everything is decided and checked before a file is made; a folder appears under its name when all of it is written.

mod card;
mod gguf;
mod kohya;
mod peft;

pub use card::{AdapterParent, AdapterProvenance, licence_beside};
use peft::PeftForm;

use super::base::{BaseModel, Prefix};
use super::{AdapterFault, AdapterWeights};
use crate::Result;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use weft_core::RopePairs;

/// What an adapter is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterProfile {
    /// A folder of PEFT that every runtime takes: one rank, no scaling, sorted modules, old settings alone.
    Portable,
    /// A folder of PEFT with ranks, scalings, biases and magnitudes as they are.
    Peft,
    /// A folder of diffusers with `pytorch_lora_weights.safetensors`.
    Diffusers,
    /// A file in the names of kohya's scripts.
    Kohya,
    /// A file of llama.cpp.
    Gguf,
}

impl AdapterProfile {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Portable, Self::Peft, Self::Diffusers, Self::Kohya, Self::Gguf];

    /// A short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Peft => "peft",
            Self::Diffusers => "diffusers",
            Self::Kohya => "kohya",
            Self::Gguf => "gguf",
        }
    }

    /// Whether it is one file; others are folders.
    #[must_use]
    pub fn is_file(self) -> bool {
        matches!(self, Self::Kohya | Self::Gguf)
    }
}

/// What is written and where.
#[derive(Debug, Clone, Copy)]
pub struct AdapterExport<'a> {
    /// As what.
    pub profile: AdapterProfile,
    /// The base, for checks of modules and shapes; llama.cpp's files and magnitudes need it.
    pub base: Option<&'a BaseModel>,
    /// The part of diffusers' pipeline that modules without one belong to, such as `unet`.
    pub component: Option<&'a str>,
    /// Whether the adapter has names of a pipeline, whose first part is a part of it. Those of a model of its own may begin
    /// alike (`transformer.h.0`), and stay as they are unless `component` says otherwise.
    pub of_pipeline: bool,
    /// Where it comes from.
    pub provenance: &'a AdapterProvenance,
}

impl<'a> AdapterExport<'a> {
    /// As a profile, without checks against a base, of a model's own names.
    #[must_use]
    pub fn new(profile: AdapterProfile, provenance: &'a AdapterProvenance) -> Self {
        Self { profile, base: None, component: None, of_pipeline: false, provenance }
    }
}

impl AdapterWeights {
    /// Writes the adapter; `out` is a folder or a file, by the profile, and must not be there.
    ///
    /// The result is what people should know. The writer checks its own names: with a base, each must be a module of it with the
    /// shape that the update has, and `target_modules` must choose these modules of the base and no other. Queries and keys must be in the order
    /// of Transformers.
    ///
    /// # Errors
    /// [`crate::Error::Exists`], [`crate::Error::Io`], and [`crate::Error::Adapter`] for what the profile cannot hold, by module's name.
    pub fn write(self, export: &AdapterExport<'_>, out: &Path) -> Result<Vec<String>> {
        let fail = |fault: AdapterFault| fault.at(out);
        let mut notes = Vec::new();
        let mut adapter = self.checked().map_err(fail)?;
        adapter.check_rotary(RopePairs::Halves).map_err(fail)?;
        let had_magnitudes = adapter.updates.iter().any(|update| update.magnitude.is_some());
        if let Some(base) = export.base.filter(|_| had_magnitudes && export.profile != AdapterProfile::Peft) {
            adapter = adapter.without_magnitudes(base)?;
            notes.push(format!("magnitudes (DoRA) became plain updates with the weights of `{}`", base.name()));
        }
        adapter = match export.profile {
            AdapterProfile::Portable | AdapterProfile::Peft => {
                let part = export.component.is_some() || export.of_pipeline;
                if part { adapter.one_part(export.component, &mut notes).map_err(fail)? } else { adapter }
            }
            _ => adapter.in_component(export.component),
        };
        // Names have changed: two may have become one.
        adapter = adapter.checked().map_err(fail)?;
        if export.profile != AdapterProfile::Peft {
            adapter.in_range(export.profile).map_err(fail)?;
        }
        let prefix = match export.base {
            Some(base) => base.check(&adapter, true).map_err(fail)?,
            None => Prefix::None,
        };
        match &prefix {
            Prefix::None => {}
            Prefix::OfAdapter(start) => notes.push(format!("the adapter's names begin with `{start}`, the base's do not")),
            Prefix::OfBase(start) => notes.push(format!("the base's names begin with `{start}`, the adapter's do not")),
        }
        match export.profile {
            AdapterProfile::Portable => {
                let rounded = adapter.updates.iter().filter(|u| u.scaling != 0.0 && u.scaling.abs().log2().fract() != 0.0).count();
                if rounded > 0 {
                    notes.push(format!(
                        "the scaling of {rounded} modules is no power of two: it rounded each value of their `B` once"
                    ));
                }
                peft::write(&adapter.portable().map_err(fail)?, PeftForm::Portable, &prefix, export, out)?;
            }
            AdapterProfile::Peft => peft::write(&adapter, PeftForm::AsItIs, &prefix, export, out)?,
            AdapterProfile::Diffusers => kohya::write_diffusers(adapter, export, out)?,
            AdapterProfile::Kohya => kohya::write_kohya(&adapter, export, out)?,
            AdapterProfile::Gguf => gguf::write(adapter, export, out)?,
        }
        Ok(notes)
    }

    /// Refuses scalings that take factors, or an alpha, out of the range of `f32`.
    fn in_range(&self, profile: AdapterProfile) -> Result<(), AdapterFault> {
        for update in &self.updates {
            let largest = update.b.iter().fold(1.0_f64, |largest, &b| largest.max(f64::from(b).abs())).max(update.rank as f64);
            if update.scaling.abs() * largest > f64::from(f32::MAX) {
                let what =
                    format!("module `{}` has the scaling {:e}: its factors leave the range of f32", update.module, update.scaling);
                return Err(AdapterFault::NotHeld { what, target: profile.name() });
            }
        }
        Ok(())
    }

    /// The same modules below a part of a pipeline, those that have none yet.
    fn in_component(mut self, component: Option<&str>) -> Self {
        let Some(component) = component else { return self };
        for update in &mut self.updates {
            if kohya::component_of(&update.module).is_none() {
                update.module = format!("{component}.{}", update.module);
            }
        }
        self
    }

    /// The modules of one part of a pipeline, without its name: a folder of PEFT belongs to one model.
    fn one_part(mut self, component: Option<&str>, notes: &mut Vec<String>) -> Result<Self, AdapterFault> {
        let parts: BTreeSet<&str> = self.updates.iter().filter_map(|update| kohya::component_of(&update.module)).collect();
        let (first, all) = (parts.first().copied(), parts.iter().copied().collect::<Vec<_>>().join("`, `"));
        let Some(part) = component.or(first).map(ToOwned::to_owned).filter(|_| first.is_some()) else { return Ok(self) };
        let target = "a folder of PEFT";
        if component.is_none() && parts.len() > 1 {
            let what = format!("the adapter has modules of several parts (`{all}`; `--component` chooses one)");
            return Err(AdapterFault::NotHeld { what, target });
        }
        let before = self.updates.len();
        self.updates.retain(|update| kohya::component_of(&update.module) == Some(&part));
        if self.updates.is_empty() {
            return Err(AdapterFault::NotHeld { what: format!("no module belongs to `{part}`, but to `{all}`"), target });
        }
        for update in &mut self.updates {
            update.module.replace_range(..=part.len(), "");
        }
        notes.push(format!("the modules are those of `{part}`, without this name in front"));
        if self.updates.len() < before {
            notes.push(format!(
                "{} of {before} modules belong to other parts and are not in this folder",
                before - self.updates.len()
            ));
        }
        Ok(self)
    }
}

/// The files of a written folder, for tests and messages.
#[must_use]
pub fn written_files(profile: AdapterProfile, out: &Path) -> Vec<PathBuf> {
    match profile {
        AdapterProfile::Portable | AdapterProfile::Peft => {
            ["adapter_config.json", "adapter_model.safetensors", "weft.json", "README.md"].map(|name| out.join(name)).to_vec()
        }
        AdapterProfile::Diffusers => [super::read::DIFFUSERS_FILE, "weft.json", "README.md"].map(|name| out.join(name)).to_vec(),
        AdapterProfile::Kohya | AdapterProfile::Gguf => vec![out.to_owned()],
    }
}
