//! Factors of diffusers' and kohya's files, brought together by module.
//!
//! `X` is a module, of diffusers with its component (`unet.`, `text_encoder.`, `transformer.`) in front:
//!
//! | names | first factor | second factor | since |
//! |---|---|---|---|
//! | PEFT in diffusers | `X.lora_A.weight` | `X.lora_B.weight` | 0.22 |
//! | diffusers | `X.lora.down.weight` | `X.lora.up.weight` | 0.20 |
//! | diffusers, text encoders | `X.lora_linear_layer.down.weight` | `X.lora_linear_layer.up.weight` | 0.18 |
//! | attention processors | `P.processor.to_q_lora.down.weight` | `P.processor.to_q_lora.up.weight` | 0.12 |
//! | kohya | `X.lora_down.weight` | `X.lora_up.weight` | — |
//!
//! `X.alpha` is a scalar; without it alpha is the rank. diffusers may say ranks and alphas in the file's metadata.
//!
//! # References
//! diffusers, `loaders/lora_conversion_utils.py`, `utils/state_dict_utils.py` and `LORA_ADAPTER_METADATA_KEY`.

use super::base::BaseModel;
use super::read::AdapterNaming;
use super::{AdapterFault, AdapterUpdate, AdapterWeights, flat};
use crate::Result;
use crate::source::{AdapterKind, PeftConfig, Source};
use std::collections::BTreeMap;

/// Where diffusers keeps the settings of PEFT.
const METADATA: &str = "lora_adapter_metadata";

/// Endings of the two factors.
const FACTORS: [(&str, Part); 8] = [
    (".lora_A.weight", Part::A),
    (".lora_B.weight", Part::B),
    (".lora.down.weight", Part::A),
    (".lora.up.weight", Part::B),
    (".lora_linear_layer.down.weight", Part::A),
    (".lora_linear_layer.up.weight", Part::B),
    (".lora_down.weight", Part::A),
    (".lora_up.weight", Part::B),
];

/// What tells forms that are not read.
const OTHER_FORMS: [(&str, &str); 7] = [
    (".hada_", "LoHa"),
    (".lokr_", "LoKr"),
    (".oft_", "OFT"),
    (".lora_mid.weight", "a LoCon with three factors"),
    (".diff", "a full difference"),
    (".norm", "a difference of norms"),
    (".glora_", "GLoRA"),
];

/// An adapter before its checks, and what was noticed.
pub(super) struct Gathered {
    pub(super) weights: AdapterWeights,
    pub(super) notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    A,
    B,
    Bias,
    Alpha,
    Magnitude,
}

/// The names of a module's tensors.
#[derive(Default)]
struct Parts {
    a: Option<String>,
    b: Option<String>,
    bias: Option<String>,
    alpha: Option<String>,
    magnitude: Option<String>,
}

/// Reads all modules of a file.
pub(super) fn gather(source: &Source, naming: AdapterNaming, base: Option<&BaseModel>) -> Result<Gathered> {
    let fail = |fault: AdapterFault| fault.at(source.path());
    let (mut modules, mut known): (BTreeMap<String, Parts>, _) = (BTreeMap::new(), BTreeMap::new());
    for (name, tensor) in source.tensors() {
        let (module, part) = meaning(&tensor.stored_name, naming, base, &mut known).map_err(fail)?;
        let parts = modules.entry(module.clone()).or_default();
        let place = match part {
            Part::A => &mut parts.a,
            Part::B => &mut parts.b,
            Part::Bias => &mut parts.bias,
            Part::Alpha => &mut parts.alpha,
            Part::Magnitude => &mut parts.magnitude,
        };
        if place.replace(name.clone()).is_some() {
            return Err(fail(AdapterFault::Duplicate { module }));
        }
    }
    let mut updates = modules.into_iter().map(|(module, parts)| parts.read(source, module)).collect::<Result<Vec<_>>>()?;
    let mut notes = Vec::new();
    if let Some(json) = source.metadata().get(METADATA) {
        apply_settings(&mut updates, json).map_err(fail)?;
    } else if naming == AdapterNaming::Diffusers {
        notes.push("the file says no alpha: where a module has none of its own, it is the rank, as diffusers takes it".to_owned());
    }
    if updates.iter().any(|update| is_original(&update.module)) {
        notes.push("the UNet's modules have the names of the original repository, not of diffusers".to_owned());
    }
    let metadata = source.metadata().clone();
    // What kohya's scripts say of the base.
    let named = ["ss_sd_model_name", "ss_base_model_version", "modelspec.architecture", "base_model"];
    let base = named.iter().find_map(|key| metadata.get(*key)).filter(|name| !name.is_empty() && *name != "None").cloned();
    Ok(Gathered { weights: AdapterWeights { base, updates, metadata, ..AdapterWeights::default() }, notes })
}

/// Whether a module of an image denoiser has its name in the original repository.
pub(super) fn is_original(module: &str) -> bool {
    ["unet.input_blocks.", "unet.middle_block.", "unet.output_blocks."].iter().any(|start| module.starts_with(start))
}

/// The module and the part of a tensor's name.
fn meaning(
    name: &str,
    naming: AdapterNaming,
    base: Option<&BaseModel>,
    known: &mut BTreeMap<String, String>,
) -> Result<(String, Part), AdapterFault> {
    let whose = if naming == AdapterNaming::Kohya { "kohya's" } else { "diffusers'" };
    let refuse = |reason: &str| AdapterFault::Name { name: name.to_owned(), naming: whose, reason: reason.to_owned() };
    let (stem, part) = split(name).map_err(|form| match form {
        Some(form) => AdapterFault::NotRead { what: format!("`{name}` is of {form}"), hint: "plain low-rank updates are read" },
        None => refuse("it is no part of a low-rank update"),
    })?;
    if naming == AdapterNaming::Diffusers {
        // Attention processors: `….attn1.processor.to_out_lora` is the module `….attn1.to_out.0`.
        if let Some((attention, leaf)) = stem.split_once(".processor.") {
            let leaf = leaf.strip_suffix("_lora").ok_or_else(|| refuse("it is no part of an attention processor"))?;
            let leaf = if leaf == "to_out" { "to_out.0" } else { leaf };
            return Ok((format!("{attention}.{leaf}"), part));
        }
        return Ok((stem.to_owned(), part));
    }
    if let Some(module) = known.get(stem) {
        return Ok((module.clone(), part));
    }
    let (component, rest) = flat::split(stem).ok_or_else(|| refuse("it begins with no known prefix, such as `lora_unet_`"))?;
    let module = flat::module(component, rest, base).map_err(|reason| refuse(&reason))?;
    known.insert(stem.to_owned(), module.clone());
    Ok((module, part))
}

/// What a name ends with; the name of a form that is not read, if it is one.
fn split(name: &str) -> Result<(&str, Part), Option<&'static str>> {
    let others = [
        (".alpha", Part::Alpha),
        (".dora_scale", Part::Magnitude),
        (".lora_magnitude_vector", Part::Magnitude),
        (".lora_magnitude_vector.weight", Part::Magnitude),
        (".lora_B.bias", Part::Bias),
    ];
    let found = FACTORS.iter().chain(&others).find_map(|(ending, part)| Some((name.strip_suffix(ending)?, *part)));
    // `.processor.to_q_lora.down.weight` ends with no dot before `lora`.
    let processor = || {
        let ends = |ending: &str| name.strip_suffix(ending).filter(|stem| stem.ends_with("_lora") && stem.contains(".processor."));
        ends(".down.weight").map(|stem| (stem, Part::A)).or_else(|| ends(".up.weight").map(|stem| (stem, Part::B)))
    };
    let form = || OTHER_FORMS.iter().find(|(mark, _)| name.contains(mark)).map(|(_, form)| *form);
    found.or_else(processor).filter(|(stem, _)| !stem.is_empty()).ok_or_else(form)
}

impl Parts {
    fn read(self, source: &Source, module: String) -> Result<AdapterUpdate> {
        let fail = |fault: AdapterFault| fault.at(source.path());
        let missing = |part| fail(AdapterFault::MissingPart { module: module.clone(), part });
        let a = self.a.ok_or_else(|| missing("lora_A"))?;
        let b = self.b.ok_or_else(|| missing("lora_B"))?;
        let shape = |name: &str| source.tensors()[name].shape.clone();
        let (a_shape, b_shape) = (shape(&a), shape(&b));
        let rank = a_shape.first().copied().unwrap_or(0);
        let fits = (2..=5).contains(&a_shape.len()) && a_shape.len() == b_shape.len() && b_shape[1] == rank;
        if !fits || rank == 0 || b_shape[2..].iter().any(|&axis| axis != 1) {
            return Err(fail(AdapterFault::Shapes { module, a: a_shape, b: b_shape }));
        }
        let read = |name: &Option<String>| name.as_deref().map(|name| source.read(name)).transpose();
        let alpha = match read(&self.alpha)?.as_deref() {
            None => rank as f64,
            Some([alpha]) if alpha.is_finite() => f64::from(*alpha),
            Some([_]) => return Err(fail(AdapterFault::NonFinite { module, part: "alpha", index: 0 })),
            Some(values) => return Err(fail(AdapterFault::Size { module, part: "alpha", expected: 1, got: values.len() })),
        };
        let kernel = a_shape[2..].to_vec();
        if let Some(name) = &self.magnitude {
            // One a column would be read as one a row where a module is square.
            let shape = &source.tensors()[name].shape;
            if shape.len() > 1 && (shape[0] != b_shape[0] || shape[1..].iter().any(|&size| size != 1)) {
                return Err(AdapterFault::NotRead {
                    what: format!("module `{module}` has magnitudes of shape {shape:?}"),
                    hint: "one for each output is read",
                }
                .at(source.path()));
            }
        }
        Ok(AdapterUpdate {
            kind: if kernel.is_empty() { AdapterKind::Linear } else { AdapterKind::Conv },
            rank,
            fan_in: a_shape[1..].iter().product(),
            fan_out: b_shape[0],
            kernel,
            scaling: alpha / rank as f64,
            a: source.read(&a)?,
            b: source.read(&b)?,
            b_bias: read(&self.bias)?,
            magnitude: read(&self.magnitude)?,
            module,
        })
    }
}

/// Scalings as diffusers' metadata say: fields of PEFT's settings behind the component's name.
fn apply_settings(updates: &mut [AdapterUpdate], json: &str) -> Result<(), AdapterFault> {
    let refuse = |reason: String| AdapterFault::Name { name: METADATA.to_owned(), naming: "diffusers' metadata", reason };
    let fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(json).map_err(|error| refuse(error.to_string()))?;
    let mut components: BTreeMap<&str, serde_json::Map<String, serde_json::Value>> = BTreeMap::new();
    for (key, value) in &fields {
        if let Some((component, field)) = key.split_once('.') {
            components.entry(component).or_default().insert(field.to_owned(), value.clone());
        }
    }
    for (component, mut settings) in components {
        settings.insert("peft_type".to_owned(), "LORA".into());
        let text = serde_json::Value::Object(settings).to_string();
        let config = PeftConfig::parse(text.as_bytes()).map_err(|fault| refuse(fault.to_string()))?;
        let own = |update: &&mut AdapterUpdate| update.module.strip_prefix(component).is_some_and(|rest| rest.starts_with('.'));
        let mut updates: Vec<&mut AdapterUpdate> = updates.iter_mut().filter(own).collect();
        let names: Vec<String> = updates.iter().map(|update| update.module[component.len() + 1..].to_owned()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = config.ranks_and_alphas(&names).map_err(|fault| refuse(fault.to_string()))?;
        for (update, (rank, alpha)) in updates.iter_mut().zip(found) {
            if rank != update.rank {
                let module = &update.module;
                return Err(refuse(format!("module `{module}` has rank {}, the metadata say {rank}", update.rank)));
            }
            update.scaling = config.scaling(rank, alpha);
        }
    }
    Ok(())
}
