//! In which order an adapter's rows of queries and keys stand, and from that of llama2.c into that of Transformers.
//!
//! The second factor of an update has the rows of its map, so it follows them; the first does not. An adapter in the other order loads without a
//! word and computes something else, so files say theirs (`weft.rotary` in the metadata), and what does not fit is refused.

use super::{AdapterFault, AdapterWeights, BaseModel};
use crate::rotary::{halves_from_interleaved, is_turned, rotary_from_name, rotary_name, turned_heads};
use crate::source::AdapterKind;
use crate::tensors::Metadata;
use weft_core::RopePairs;

/// The entry of a file's metadata.
pub(super) const KEY: &str = "weft.rotary";

/// What a file's metadata say.
///
/// # Errors
/// [`AdapterFault::NotRead`] for a word that is no order.
pub fn rotary_in(metadata: &Metadata) -> Result<Option<RopePairs>, AdapterFault> {
    let Some(word) = metadata.get(KEY) else { return Ok(None) };
    let fail = || AdapterFault::NotRead {
        what: format!("its metadata say `{KEY}` = `{word}`"),
        hint: "known are `halves` (Transformers) and `interleaved` (llama2.c)",
    };
    rotary_from_name(word).map(Some).ok_or_else(fail)
}

impl AdapterWeights {
    /// The first module whose rows depend on the order.
    fn turned(&self) -> Option<&str> {
        let updated = self.updates.iter().find(|update| update.kind == AdapterKind::Linear && is_turned(&update.module));
        updated.map(|update| update.module.as_str()).or_else(|| self.turned_whole())
    }

    /// The first module that the adapter has whole, or the bias of, and whose rows depend on the order.
    fn turned_whole(&self) -> Option<&str> {
        let modules = self.whole.iter().filter_map(|tensor| tensor.name.rsplit_once('.').map(|(module, _)| module));
        modules.into_iter().find(|module| is_turned(module))
    }

    /// Refuses an adapter whose queries or keys are in another order than `expected`; one that does not say its own has that of PEFT.
    ///
    /// # Errors
    /// [`AdapterFault::Rotary`].
    pub fn check_rotary(&self, expected: RopePairs) -> Result<(), AdapterFault> {
        let own = self.rotary.unwrap_or(RopePairs::Halves);
        match self.turned().filter(|_| own != expected) {
            None => Ok(()),
            Some(module) => {
                let module = module.to_owned();
                Err(AdapterFault::Rotary { module, got: rotary_name(own), expected: rotary_name(expected) })
            }
        }
    }

    /// The same adapter in the order of Transformers, from that of llama2.c; the base says its heads.
    ///
    /// # Errors
    /// [`AdapterFault::Rotary`] if the adapter says that it is in the order of Transformers already, [`AdapterFault::Needs`] if the base does
    /// not say its heads, or [`AdapterFault::NotHeld`] for a module that these do not divide evenly.
    pub fn turned_to_halves(mut self, base: &BaseModel) -> Result<Self, AdapterFault> {
        if self.rotary == Some(RopePairs::Halves) {
            return self.check_rotary(RopePairs::Interleaved).map(|()| self);
        }
        if let Some(module) = self.turned_whole() {
            let what = format!("`{module}` is whole in the adapter, or its bias is, in the order of llama2.c");
            return Err(AdapterFault::NotHeld { what, target: "an adapter that is brought into the order of Transformers" });
        }
        let heads = base.heads("an adapter in the order of Transformers")?;
        for update in self.updates.iter_mut().filter(|update| update.kind == AdapterKind::Linear) {
            let Some(heads) = turned_heads(&update.module, heads) else { continue };
            if !update.fan_out.is_multiple_of(2 * heads) {
                let (module, outputs) = (&update.module, update.fan_out);
                let what = format!("module `{module}` has {outputs} outputs, which {heads} heads of even width do not divide");
                return Err(AdapterFault::NotHeld { what, target: "the order of Transformers" });
            }
            update.b = halves_from_interleaved(&update.b, update.rank, heads);
            for rows in [&mut update.b_bias, &mut update.magnitude].into_iter().flatten() {
                *rows = halves_from_interleaved(rows, 1, heads);
            }
        }
        self.rotary = Some(RopePairs::Halves);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AdapterUpdate, WholeTensor};
    use super::*;
    use std::collections::BTreeMap;

    fn adapter(module: &str, rotary: Option<RopePairs>) -> AdapterWeights {
        let b = (0..8).map(|i| i as f32).collect();
        let update = AdapterUpdate::linear(module, [8, 1, 2], vec![1.0; 2], b);
        AdapterWeights { rotary, updates: vec![update], ..AdapterWeights::default() }
    }

    fn base(heads: usize) -> BaseModel {
        let shapes = ["a.q_proj", "a.k_proj", "a.v_proj"].map(|name| (name.to_owned(), vec![8, 2]));
        let config = serde_json::json!({ "num_attention_heads": heads, "num_key_value_heads": 1 });
        let config = config.as_object().expect("an object").clone();
        BaseModel::of_modules("base", BTreeMap::from(shapes)).with_config(config)
    }

    #[test]
    fn rows_of_queries_and_keys_follow_their_heads() {
        let check = |module: &str, expected: [f32; 8]| {
            let turned = adapter(module, None).turned_to_halves(&base(2)).unwrap();
            assert_eq!((turned.updates[0].b.as_slice(), turned.rotary), (&expected[..], Some(RopePairs::Halves)), "{module}");
        };
        check("a.q_proj", [0., 2., 1., 3., 4., 6., 5., 7.]);
        check("a.k_proj", [0., 2., 4., 6., 1., 3., 5., 7.]);
        check("a.v_proj", [0., 1., 2., 3., 4., 5., 6., 7.]);
        let uneven = adapter("a.q_proj", None).turned_to_halves(&base(3)).unwrap_err().to_string();
        assert!(uneven.contains("`a.q_proj` has 8 outputs") && uneven.contains("3 heads"), "{uneven}");
        assert!(adapter("a.q_proj", Some(RopePairs::Halves)).turned_to_halves(&base(2)).is_err());
        // What it has whole would stay as it is.
        let whole = WholeTensor { name: "a.k_proj.bias".to_owned(), shape: vec![8], values: vec![0.0; 8] };
        let with_bias = AdapterWeights { whole: vec![whole], ..adapter("a.v_proj", Some(RopePairs::Interleaved)) };
        assert!(with_bias.check_rotary(RopePairs::Halves).is_err());
        let message = with_bias.turned_to_halves(&base(2)).unwrap_err().to_string();
        assert!(message.contains("`a.k_proj` is whole"), "{message}");
    }

    #[test]
    fn another_order_is_refused_where_it_matters() {
        let [halves, interleaved] = [RopePairs::Halves, RopePairs::Interleaved];
        assert!(adapter("a.q_proj", None).check_rotary(halves).is_ok());
        assert!(adapter("a.v_proj", Some(interleaved)).check_rotary(halves).is_ok());
        let error = adapter("a.q_proj", Some(interleaved)).check_rotary(halves).unwrap_err().to_string();
        assert!(error.contains("`a.q_proj`") && error.contains("`interleaved`") && error.contains("`halves`"), "{error}");
        assert!(adapter("a.k_proj", None).check_rotary(interleaved).is_err());
        let metadata = |word: &str| Metadata::from([(KEY.to_owned(), word.to_owned())]);
        assert_eq!(rotary_in(&metadata("interleaved")), Ok(Some(interleaved)));
        assert!(rotary_in(&metadata("sideways")).unwrap_err().to_string().contains("sideways"));
    }
}
