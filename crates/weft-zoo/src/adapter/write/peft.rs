//! Folders of the PEFT library.
//!
//! The portable form has the settings that PEFT 0.3 knew and no other: older versions refuse a setting that they do not
//! know. PEFT loads with `strict=False`, and a name that fits nothing is dropped without a word; so the names are
//! checked here against the base's modules, and `target_modules` must choose the adapter's modules and no other.
//!
//! # References
//! PEFT, `LoraConfig`, `set_peft_model_state_dict`, `check_target_module_exists` (a name, or the end of one behind a dot).

use super::super::base::{BaseModel, Prefix};
use super::super::{AdapterFault, AdapterUpdate, AdapterWeights};
use super::{AdapterExport, card};
use crate::source::AdapterKind;
use crate::tensors::write_tensors;
use crate::{Result, write_atomic, write_folder};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Which settings a folder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeftForm {
    /// Those of PEFT 0.3 alone.
    Portable,
    /// What the adapter needs: patterns of ranks and alphas, `use_dora`, `lora_bias`.
    AsItIs,
}

/// A tensor to write.
type Tensor<'a> = (String, Vec<usize>, &'a [f32]);

pub(super) fn write(
    adapter: &AdapterWeights,
    form: PeftForm,
    prefix: &Prefix,
    export: &AdapterExport<'_>,
    out: &Path,
) -> Result<()> {
    let fail = |fault: AdapterFault| fault.at(out);
    refuse(adapter).map_err(fail)?;
    let tensors = tensors(adapter);
    let targets = target_modules(adapter, export.base, prefix).map_err(fail)?;
    let config = config(adapter, form, &targets).map_err(fail)?;
    let metadata = card::metadata(adapter, export);
    write_folder(out, |folder| {
        write_tensors(&folder.join("adapter_model.safetensors"), &tensors, &metadata)?;
        write_atomic(&folder.join("adapter_config.json"), format!("{:#}\n", Value::Object(config)).as_bytes())?;
        card::write(adapter, export, folder)
    })
}

/// Refuses names that PEFT would not find again, and forms whose layout there is not known.
fn refuse(adapter: &AdapterWeights) -> Result<(), AdapterFault> {
    let target = "a folder of PEFT";
    for update in &adapter.updates {
        let module = &update.module;
        if super::super::parts::is_original(module) {
            let what = format!("module `{module}` has its name of the original repository, not of diffusers");
            return Err(AdapterFault::NotHeld { what, target });
        }
        if update.magnitude.is_some() && update.kind != AdapterKind::Linear {
            return Err(AdapterFault::NotHeld { what: format!("module `{module}` is no linear map and has magnitudes"), target });
        }
    }
    for (some, what) in
        [(count(adapter, |u| u.magnitude.is_some()), "magnitudes"), (count(adapter, |u| u.b_bias.is_some()), "a bias")]
    {
        if some != 0 && some != adapter.updates.len() {
            let what = format!("{some} of {} modules have {what}", adapter.updates.len());
            return Err(AdapterFault::NotHeld { what, target });
        }
    }
    Ok(())
}

fn count(adapter: &AdapterWeights, of: impl Fn(&AdapterUpdate) -> bool) -> usize {
    adapter.updates.iter().filter(|update| of(update)).count()
}

/// All tensors under PEFT's names.
fn tensors(adapter: &AdapterWeights) -> Vec<Tensor<'_>> {
    let mut tensors: Vec<Tensor<'_>> = Vec::new();
    for update in &adapter.updates {
        let name = |part: &str| format!("base_model.model.{}.{part}", update.module);
        let [a, b] = match update.kind {
            AdapterKind::Embedding => ["lora_embedding_A", "lora_embedding_B"],
            AdapterKind::Linear | AdapterKind::Conv => ["lora_A.weight", "lora_B.weight"],
        };
        tensors.push((name(a), update.a_shape(), &update.a));
        tensors.push((name(b), update.b_shape(), &update.b));
        if let Some(bias) = &update.b_bias {
            tensors.push((name("lora_B.bias"), vec![bias.len()], bias));
        }
        if let Some(magnitude) = &update.magnitude {
            tensors.push((name("lora_magnitude_vector"), vec![magnitude.len()], magnitude));
        }
    }
    for tensor in &adapter.whole {
        tensors.push((format!("base_model.model.{}", tensor.name), tensor.shape.clone(), &tensor.values));
    }
    tensors.sort_by(|x, y| x.0.cmp(&y.0));
    tensors
}

/// Sorted names that choose the adapter's modules: their last parts where the base shows that these choose no other, else in full.
fn target_modules(adapter: &AdapterWeights, base: Option<&BaseModel>, prefix: &Prefix) -> Result<Vec<String>, AdapterFault> {
    let own: BTreeSet<&str> = adapter.updates.iter().map(|update| update.module.as_str()).collect();
    let full: Vec<String> = own.iter().map(|&module| module.to_owned()).collect();
    let Some(base) = base else { return Ok(full) };
    let names: Vec<String> = base.modules().keys().filter_map(|module| prefix.undo(module)).collect();
    let chosen = |targets: &BTreeSet<&str>| -> BTreeSet<&str> {
        let fits =
            |name: &str| name.match_indices('.').any(|(dot, _)| targets.contains(&name[dot + 1..])) || targets.contains(name);
        names.iter().map(String::as_str).filter(|name| fits(name)).collect()
    };
    let leaves: BTreeSet<&str> = own.iter().map(|module| module.rsplit('.').next().unwrap_or(module)).collect();
    if chosen(&leaves) == own {
        return Ok(leaves.into_iter().map(ToOwned::to_owned).collect());
    }
    let by_full = chosen(&own);
    match by_full.symmetric_difference(&own).next() {
        None => Ok(full),
        Some(other) => {
            let what = format!("`target_modules` would not choose the adapter's modules alone: `{other}` of the base");
            Err(AdapterFault::NotHeld { what, target: "a folder of PEFT" })
        }
    }
}

/// `adapter_config.json`.
fn config(adapter: &AdapterWeights, form: PeftForm, targets: &[String]) -> Result<Map<String, Value>, AdapterFault> {
    let (rank, alpha) = common(adapter);
    // Modules of which only a bias is there come from `bias = "all"`; others were saved whole.
    let mut saved: BTreeMap<String, bool> = BTreeMap::new();
    // A base's own weight is no module that was trained whole.
    for tensor in adapter.whole.iter().filter(|tensor| !tensor.is_base_layer()) {
        let (stem, leaf) = tensor.name.rsplit_once('.').unwrap_or((tensor.name.as_str(), ""));
        *saved.entry(stem.to_owned()).or_insert(true) &= leaf == "bias";
    }
    let has_bias = saved.values().any(|&only_bias| only_bias);
    let modules: Vec<&String> = saved.iter().filter(|(_, only_bias)| !**only_bias).map(|(module, _)| module).collect();
    let fields = json!({
        "base_model_name_or_path": adapter.base,
        "bias": if has_bias { "all" } else { "none" },
        "fan_in_fan_out": adapter.fan_in_fan_out,
        "inference_mode": true,
        "lora_alpha": number(alpha),
        "lora_dropout": 0.0,
        "modules_to_save": if modules.is_empty() { Value::Null } else { json!(modules) },
        "peft_type": "LORA",
        "r": rank,
        "target_modules": targets,
        "task_type": adapter.metadata.get("task_type"),
    });
    let Value::Object(mut fields) = fields else { return Err(AdapterFault::Empty) };
    if form == PeftForm::Portable {
        return Ok(fields);
    }
    let mut patterns = [Map::new(), Map::new()];
    for update in &adapter.updates {
        if update.rank != rank {
            patterns[0].insert(pattern(&update.module, adapter), json!(update.rank));
        }
        let own = update.scaling * update.rank as f64;
        if (own - alpha).abs() > 1e-9 * alpha.abs() {
            patterns[1].insert(pattern(&update.module, adapter), number(own));
        }
    }
    let [ranks, alphas] = patterns;
    for (key, map) in [("rank_pattern", ranks), ("alpha_pattern", alphas)] {
        fields.insert(key.to_owned(), Value::Object(map));
    }
    fields.insert("use_rslora".to_owned(), json!(false));
    fields.insert("use_dora".to_owned(), json!(count(adapter, |u| u.magnitude.is_some()) > 0));
    if count(adapter, |u| u.b_bias.is_some()) > 0 {
        fields.insert("lora_bias".to_owned(), json!(true));
    }
    Ok(fields)
}

/// The rank and the alpha that most modules have.
fn common(adapter: &AdapterWeights) -> (usize, f64) {
    let mut counts: BTreeMap<(usize, u64), usize> = BTreeMap::new();
    for update in &adapter.updates {
        *counts.entry((update.rank, (update.scaling * update.rank as f64).to_bits())).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|&(key, count)| (count, std::cmp::Reverse(key)));
    most.map_or((8, 8.0), |((rank, alpha), _)| (rank, f64::from_bits(alpha)))
}

/// A whole number as one: PEFT declares `lora_alpha` so.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e9 { json!(value as i64) } else { json!(value) }
}

/// A module's name as a pattern that fits it alone among those of the adapter.
///
/// PEFT takes a pattern for the end of a name behind a dot, or (0.21 does, 0.14 does not) for all of it; before, a key that is a module's full name is found as it
/// stands, and one with `^` never. So a name is anchored only where it would fit another module as well.
fn pattern(module: &str, adapter: &AdapterWeights) -> String {
    let is_plain = module.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    let escape = |c: char| (!c.is_alphanumeric() && c != '_').then_some('\\').into_iter().chain([c]);
    let escaped = || module.chars().flat_map(escape).collect::<String>();
    // A dot of a pattern is any character.
    let alike = |end: &str| end.len() == module.len() && end.bytes().zip(module.bytes()).all(|(e, m)| e == m || m == b'.');
    let fits = |other: &str| other.match_indices('.').any(|(dot, _)| alike(&other[dot + 1..])) || alike(other);
    let fits_others = adapter.updates.iter().any(|update| update.module != module && fits(&update.module));
    match (is_plain, fits_others) {
        (true, false) => module.to_owned(),
        (false, false) => escaped(),
        (_, true) => format!("^{}$", escaped()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_one_module() {
        let names = ["a.q", "b.a.q", "model.layers.0.q", "v+w", "x.v+w", "a.b.k", "aXb.k"];
        let update = |name: &&str| AdapterUpdate::linear(name, [1, 1, 1], vec![1.0], vec![1.0]);
        let adapter = AdapterWeights { updates: names.iter().map(update).collect(), ..AdapterWeights::default() };
        let check = |module: &str, expected: &str| {
            let text = pattern(module, &adapter);
            assert_eq!(text, expected);
            // As PEFT 0.21 has it.
            let regex = regex::Regex::new(&format!(r"^(?:(.*\.)?({text})$)")).expect("a pattern");
            let fit: Vec<&str> = names.into_iter().filter(|name| regex.is_match(name)).collect();
            assert_eq!(fit, [module]);
        };
        check("a.q", r"^a\.q$");
        check("b.a.q", "b.a.q");
        check("model.layers.0.q", "model.layers.0.q");
        check("v+w", r"^v\+w$");
        check("a.b.k", r"^a\.b\.k$");
        check("aXb.k", "aXb.k");
    }
}
