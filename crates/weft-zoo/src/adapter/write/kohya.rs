//! Files of diffusers and of kohya's scripts: modules of a pipeline's parts.

use super::super::flat;
use super::super::profile::plain;
use super::super::{AdapterFault, AdapterUpdate, AdapterWeights};
use super::{AdapterExport, card};
use crate::atomic::parent_of;
use crate::source::AdapterKind;
use crate::tensors::{stage_tensors, write_tensors};
use crate::{Result, refuse_existing, write_folder};
use std::path::Path;

/// The part of a pipeline that a module belongs to.
pub(super) fn component_of(module: &str) -> Option<&str> {
    let (first, _) = module.split_once('.')?;
    flat::COMPONENTS.iter().any(|(_, component)| *component == first).then_some(first)
}

/// Refuses what these files cannot hold.
fn refuse(adapter: &AdapterWeights, target: &'static str) -> Result<(), AdapterFault> {
    let fail = |what: String| Err(AdapterFault::NotHeld { what, target });
    if let Some(tensor) = adapter.whole.first() {
        return fail(format!("the adapter replaces `{}` as a whole", tensor.name));
    }
    for update in &adapter.updates {
        let module = &update.module;
        plain(update, target)?;
        if update.kind == AdapterKind::Embedding {
            return fail(format!("module `{module}` is a table of embeddings"));
        }
        if component_of(module).is_none() {
            let known: Vec<&str> = flat::COMPONENTS.iter().map(|(_, component)| *component).collect();
            return fail(format!(
                "module `{module}` belongs to no part of a pipeline (`{}`; `--component` says it)",
                known.join("`, `")
            ));
        }
    }
    Ok(())
}

/// `pytorch_lora_weights.safetensors`, with the scaling in `B`: older versions read no alpha beside PEFT's names.
pub(super) fn write_diffusers(adapter: AdapterWeights, export: &AdapterExport<'_>, out: &Path) -> Result<()> {
    let fail = |fault: AdapterFault| fault.at(out);
    refuse(&adapter, "a file of diffusers").map_err(fail)?;
    if let Some(update) = adapter.updates.iter().find(|update| super::super::parts::is_original(&update.module)) {
        let what = format!("module `{}` has its name of the original repository", update.module);
        return Err(fail(AdapterFault::NotHeld { what, target: "a file of diffusers" }));
    }
    let adapter = adapter.baked();
    let pair = |update: &AdapterUpdate, part: &str| format!("{}.{part}.weight", update.module);
    let factors = adapter.updates.iter().flat_map(|update| {
        [(pair(update, "lora_A"), update.a_shape(), update.a.as_slice()), (pair(update, "lora_B"), update.b_shape(), &update.b)]
    });
    let tensors: Vec<_> = factors.collect();
    write_folder(out, |folder| {
        write_tensors(&folder.join(super::super::read::DIFFUSERS_FILE), &tensors, &card::metadata(&adapter, export))?;
        card::write(&adapter, export, folder)
    })
}

/// One file with `.lora_down.weight`, `.lora_up.weight` and a scalar `.alpha` a module.
pub(super) fn write_kohya(adapter: &AdapterWeights, export: &AdapterExport<'_>, out: &Path) -> Result<()> {
    let fail = |fault: AdapterFault| fault.at(out);
    let target = "a file of kohya's scripts";
    refuse(adapter, target).map_err(fail)?;
    let two_encoders = adapter.updates.iter().any(|update| component_of(&update.module) == Some("text_encoder_2"));
    let alphas: Vec<[f32; 1]> = adapter.updates.iter().map(|u| [(u.scaling * u.rank as f64) as f32]).collect();
    let mut tensors = Vec::with_capacity(3 * adapter.updates.len());
    for (update, alpha) in adapter.updates.iter().zip(&alphas) {
        let name = flat::flatten(&update.module, two_encoders).ok_or_else(|| {
            fail(AdapterFault::NotHeld {
                what: format!("module `{}` belongs to no known part of a pipeline", update.module),
                target,
            })
        })?;
        tensors.push((format!("{name}.alpha"), Vec::new(), alpha.as_slice()));
        tensors.push((format!("{name}.lora_down.weight"), update.a_shape(), update.a.as_slice()));
        tensors.push((format!("{name}.lora_up.weight"), update.b_shape(), update.b.as_slice()));
    }
    tensors.sort_by(|x, y| x.0.cmp(&y.0));
    if let Some(pair) = tensors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(fail(AdapterFault::Duplicate { module: pair[0].0.clone() }));
    }
    let mut metadata = card::metadata(adapter, export);
    metadata.insert("ss_network_module".to_owned(), "networks.lora".to_owned());
    let first = adapter.updates.first().zip(alphas.first());
    if let Some((update, [alpha])) = first.filter(|(first, _)| adapter.updates.iter().all(|update| update.rank == first.rank)) {
        metadata.insert("ss_network_dim".to_owned(), update.rank.to_string());
        metadata.insert("ss_network_alpha".to_owned(), alpha.to_string());
    }
    refuse_existing(out)?;
    stage_tensors(parent_of(out), &tensors, &metadata)?.commit(out)
}
