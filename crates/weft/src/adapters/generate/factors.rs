//! Rows of factors as adapters of the codec's kind, and back.

use crate::{Error, Result};
use weft_codec::adapter::{AdapterSet, Factors, Module};
use weft_core::Population;
use weft_core::families::Lora;

/// All adapters of a population.
pub(super) fn set_of(lora: &Lora, adapters: &Population) -> Result<AdapterSet> {
    let module = |m: &weft_core::families::LoraModule| Module { name: m.name.clone(), fan_out: m.fan_out, fan_in: m.fan_in };
    let factors = |mut row: &[f32]| -> Vec<Factors> {
        let mut take = |len: usize| {
            let (taken, rest) = row.split_at(len);
            row = rest;
            taken.to_vec()
        };
        let of_module = |m: &weft_core::families::LoraModule| {
            let a = take(m.rank * m.fan_in);
            Factors { rank: m.rank, scaling: m.scaling, a, b: take(m.fan_out * m.rank) }
        };
        lora.modules.iter().map(of_module).collect()
    };
    Ok(AdapterSet::new(lora.modules.iter().map(module).collect(), adapters.rows().map(factors).collect())?)
}

/// The row of an adapter whose ranks are the family's or less.
pub(super) fn row_of(lora: &Lora, factors: &[Factors]) -> Result<Vec<f32>> {
    let mut row = Vec::new();
    for (module, own) in lora.modules.iter().zip(factors) {
        if own.rank > module.rank {
            let (what, expected) = ("the rank of a merged adapter", format!("at most {}", module.rank));
            return Err(Error::Range { what, expected, got: own.rank.to_string() });
        }
        row.extend_from_slice(&own.a);
        row.resize(row.len() + (module.rank - own.rank) * module.fan_in, 0.0);
        let scale = (own.scaling / module.scaling) as f32;
        for outputs in own.b.chunks_exact(own.rank.max(1)).take(module.fan_out) {
            row.extend(outputs.iter().map(|b| b * scale));
            row.resize(row.len() + module.rank - outputs.len(), 0.0);
        }
        if own.rank == 0 {
            row.resize(row.len() + module.fan_out * module.rank, 0.0);
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use weft_core::families::{Family, LoraModule};

    #[test]
    fn rows_come_back_and_lower_ranks_are_filled_up() {
        let module = |name: &str, fan_out| LoraModule { name: name.to_owned(), fan_in: 3, fan_out, rank: 2, scaling: 4.0 };
        let lora = Lora { modules: vec![module("q", 2), module("v", 1)] };
        let architecture = Arc::new(Family::Lora(lora.clone()).build("tiny").unwrap());
        let row: Vec<f32> = (0..18).map(|i| i as f32).collect();
        let set = set_of(&lora, &Population::new(architecture, row.clone()).unwrap()).unwrap();
        assert_eq!(row_of(&lora, set.adapter(0)).unwrap(), row);
        let one = Factors { rank: 1, scaling: 2.0, a: vec![1.0, 2.0, 3.0], b: vec![10.0, 20.0] };
        let none = Factors { rank: 0, scaling: 1.0, a: vec![], b: vec![] };
        let filled = row_of(&lora, &[one, none]).unwrap();
        assert_eq!(filled[..10], [1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 5.0, 0.0, 10.0, 0.0]);
        assert_eq!(filled[10..], [0.0; 8]);
        let three = Factors { rank: 3, scaling: 1.0, a: vec![0.0; 9], b: vec![0.0; 6] };
        assert!(row_of(&lora, &[three]).unwrap_err().to_string().contains("at most 2"));
    }
}
