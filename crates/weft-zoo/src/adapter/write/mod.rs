//! Adapters into the files that their tools load.
//!
//! Everything is decided and checked before a file is made; a folder appears under its name when all of it is written.

mod card;
mod folder;
mod gguf;
mod kohya;
mod peft;

pub use card::{AdapterParent, AdapterProvenance, licence_beside};
use peft::PeftForm;

use super::base::{BaseModel, Prefix};
use super::{AdapterFault, AdapterWeights};
use crate::Result;
use std::path::{Path, PathBuf};

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
    /// Where it comes from.
    pub provenance: &'a AdapterProvenance,
}

impl AdapterWeights {
    /// Writes the adapter; `out` is a folder or a file, by the profile, and must not be there.
    ///
    /// The result is what people should know. The writer checks its own names: with a base, each must be a module of it with the
    /// shape that the update has, and `target_modules` must choose these modules of the base and no other.
    ///
    /// # Errors
    /// [`crate::Error::Exists`], [`crate::Error::Io`], and [`crate::Error::Adapter`] for what the profile cannot hold, by module's name.
    pub fn write(self, export: &AdapterExport<'_>, out: &Path) -> Result<Vec<String>> {
        let fail = |fault: AdapterFault| fault.at(out);
        let mut notes = Vec::new();
        let mut adapter = self.checked().map_err(fail)?;
        let had_magnitudes = adapter.updates.iter().any(|update| update.magnitude.is_some());
        if let Some(base) = export.base.filter(|_| had_magnitudes && export.profile != AdapterProfile::Peft) {
            adapter = adapter.without_magnitudes(base)?;
            notes.push(format!("magnitudes (DoRA) became plain updates with the weights of `{}`", base.name()));
        }
        if let Some(component) = export.component {
            adapter = adapter.in_component(component);
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

    /// The same modules below a part of a pipeline, those that have none yet.
    fn in_component(mut self, component: &str) -> Self {
        for update in &mut self.updates {
            if kohya::component_of(&update.module).is_none() {
                update.module = format!("{component}.{}", update.module);
            }
        }
        self
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
