//! Which samples may be written: those of finite weights that say finite things of data.

use super::Session;
use crate::run::Stage;
use crate::{Error, Result};
use weft_core::{Part, Population};
use weft_net::Device;

/// Training inputs that samples are run on.
const INPUTS: usize = 256;

/// The numbers of the samples that may be written; how many may not is noted.
pub(super) fn sound(session: &Session, stage: Stage, networks: &Population) -> Result<Vec<usize>> {
    let dataset = session.dataset(stage)?;
    let train = dataset.range(Part::Train);
    let inputs = dataset.gather(train.start..train.end.min(train.start + INPUTS));
    let kept = finite(networks, &inputs, &session.device)?;
    note(session, stage, [networks.len() - kept.len(), networks.len()]);
    Ok(kept)
}

/// Says how many samples, of how many, are not written.
pub(super) fn note(session: &Session, stage: Stage, [left_out, all]: [usize; 2]) {
    if left_out > 0 {
        let stage = stage.name();
        session.monitor.note(format!(
            "{stage}: {left_out} of {all} networks have weights or outputs that are not finite, and are not written"
        ));
    }
}

/// The error where too few samples, of how many, may be written.
pub(super) fn too_few([kept, all]: [usize; 2]) -> Error {
    Error::Range {
        what: "weights and outputs of samples",
        expected: "finite numbers; nothing was written".to_owned(),
        got: format!("{kept} such networks of {all}"),
    }
}

/// Networks of finite weights and finite outputs on inputs, `[m, d]`, by their numbers.
fn finite(networks: &Population, inputs: &[f32], device: &Device) -> Result<Vec<usize>> {
    let is_finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
    let kept: Vec<usize> = networks.rows().enumerate().filter(|(_, row)| is_finite(row)).map(|(i, _)| i).collect();
    if kept.is_empty() {
        return Ok(kept);
    }
    let outputs = weft_net::logits(&networks.select(&kept), inputs, device)?;
    let each = outputs.chunks_exact((outputs.len() / kept.len()).max(1));
    Ok(kept.iter().zip(each).filter(|(_, outputs)| is_finite(outputs)).map(|(&i, _)| i).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use weft_core::{Activation, Architecture};

    #[test]
    fn what_is_not_finite_or_says_what_is_not_is_left_out() {
        let architecture = Arc::new(Architecture::mlp("two", &[2, 3, 2], Activation::Relu).unwrap());
        let dim = architecture.num_parameters();
        let row = |weight: f32| vec![weight; dim];
        let mut broken = row(0.5);
        broken[dim - 1] = f32::NAN;
        // The third is finite, and its sums are not.
        let rows = [row(0.5), broken, row(3e38), row(-0.5)].concat();
        let networks = Population::new(architecture.clone(), rows).unwrap();
        assert_eq!(finite(&networks, &[1.0, 2.0, 3.0, 4.0], &Device::cpu()).unwrap(), [0, 3]);
        let none = Population::new(architecture, row(f32::INFINITY)).unwrap();
        assert!(finite(&none, &[1.0, 2.0], &Device::cpu()).unwrap().is_empty());
    }
}
