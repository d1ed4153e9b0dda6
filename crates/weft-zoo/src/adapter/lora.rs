//! Adapters as networks of the `lora` family: a list of modules and a row of weights.

use super::{AdapterFault, AdapterUpdate, AdapterWeights};
use weft_core::families::{Lora, LoraModule};

impl AdapterWeights {
    /// The modules as a family, and the factors as a row in the layout of its architecture: `A`, then `B`, module by module.
    ///
    /// Embeddings and convolutions enter as the matrices that they are; [`AdapterWeights::with_row`] leads back to them.
    ///
    /// # Errors
    /// [`AdapterFault::NotHeld`] for magnitudes (DoRA), biases and whole tensors, [`AdapterFault::Empty`] without an update.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use weft_core::families::Family;
    /// use weft_zoo::adapter::{AdapterUpdate, AdapterWeights};
    ///
    /// let update = AdapterUpdate::linear("h.0.q", [2, 1, 3], vec![1.0, 2.0, 3.0], vec![4.0, 5.0]);
    /// let adapter = AdapterWeights { updates: vec![update], ..Default::default() };
    /// let (lora, row) = adapter.to_lora()?;
    /// assert_eq!(row, [1.0, 2.0, 3.0, 4.0, 5.0]);
    /// let architecture = Family::Lora(lora.clone()).build("tiny")?;
    /// assert_eq!(architecture.tensors()[1].name, "h.0.q.lora_B.weight");
    /// assert_eq!(AdapterWeights::from_lora(&lora, &row, None)?, adapter);
    /// # Ok(())
    /// # }
    /// ```
    pub fn to_lora(&self) -> Result<(Lora, Vec<f32>), AdapterFault> {
        let refuse = |what: String| AdapterFault::NotHeld { what, target: "a row of factors" };
        if let Some(tensor) = self.whole.first() {
            return Err(refuse(format!("it replaces `{}` as a whole", tensor.name)));
        }
        if self.updates.is_empty() {
            return Err(AdapterFault::Empty);
        }
        let mut row = Vec::with_capacity(self.num_values());
        let mut modules = Vec::with_capacity(self.updates.len());
        for update in &self.updates {
            update.check()?;
            if update.magnitude.is_some() {
                return Err(refuse(format!("module `{}` has magnitudes (DoRA)", update.module)));
            }
            if update.b_bias.is_some() {
                return Err(refuse(format!("module `{}` has a bias", update.module)));
            }
            row.extend_from_slice(&update.a);
            row.extend_from_slice(&update.b);
            let AdapterUpdate { fan_in, fan_out, rank, scaling, .. } = *update;
            modules.push(LoraModule { name: update.module.clone(), fan_in, fan_out, rank, scaling });
        }
        Ok((Lora { modules }, row))
    }

    /// An adapter of linear maps from a family and a row in the layout of its architecture.
    ///
    /// # Errors
    /// [`AdapterFault::Row`] for a row of another length, and those of [`AdapterWeights::checked`].
    pub fn from_lora(lora: &Lora, row: &[f32], base: Option<String>) -> Result<Self, AdapterFault> {
        let linear = |module: &LoraModule| AdapterUpdate {
            scaling: module.scaling,
            ..AdapterUpdate::linear(&module.name, [module.fan_out, module.rank, module.fan_in], Vec::new(), Vec::new())
        };
        let updates = lora.modules.iter().map(linear).collect();
        Self { base, updates, ..Self::default() }.with_row(row)?.checked()
    }

    /// The same modules with other factors, in the layout of [`AdapterWeights::to_lora`]; all else stays.
    ///
    /// # Errors
    /// [`AdapterFault::Row`] for a row of another length, [`AdapterFault::NonFinite`].
    pub fn with_row(&self, row: &[f32]) -> Result<Self, AdapterFault> {
        let sizes = self.updates.iter().map(|u| u.fan_in.saturating_add(u.fan_out).saturating_mul(u.rank));
        let expected = sizes.fold(0, usize::saturating_add);
        if expected != row.len() {
            return Err(AdapterFault::Row { expected, got: row.len() });
        }
        let mut rest = row;
        let mut take = |len: usize| {
            let (taken, left) = rest.split_at(len);
            rest = left;
            taken.to_vec()
        };
        let mut adapter = self.clone();
        for update in &mut adapter.updates {
            update.a = take(update.rank * update.fan_in);
            update.b = take(update.fan_out * update.rank);
            update.check()?;
        }
        Ok(adapter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::WholeTensor;
    use crate::source::AdapterKind;
    use weft_core::families::Family;

    fn adapter() -> AdapterWeights {
        let numbers = |from: usize, len: usize| (from..from + len).map(|i| i as f32).collect::<Vec<f32>>();
        let q = AdapterUpdate { scaling: 2.0, ..AdapterUpdate::linear("h.q", [5, 2, 3], numbers(0, 6), numbers(6, 10)) };
        let conv = AdapterUpdate {
            kind: AdapterKind::Conv,
            kernel: vec![2, 1],
            ..AdapterUpdate::linear("h.conv", [4, 1, 6], numbers(20, 6), numbers(30, 4))
        };
        AdapterWeights { base: Some("base".to_owned()), updates: vec![conv, q], ..AdapterWeights::default() }.checked().unwrap()
    }

    #[test]
    fn the_row_is_that_of_the_architecture() {
        let adapter = adapter();
        let (lora, row) = adapter.to_lora().unwrap();
        let architecture = Family::Lora(lora.clone()).build("a").unwrap();
        assert_eq!(architecture.num_parameters(), row.len());
        for update in &adapter.updates {
            for (part, values) in [("lora_A", &update.a), ("lora_B", &update.b)] {
                let name = format!("{}.{part}.weight", update.module);
                let spec = architecture.tensors().iter().find(|spec| spec.name == name).unwrap();
                assert_eq!(&row[spec.range()], values.as_slice(), "{name}");
            }
        }
        assert_eq!(adapter.with_row(&row).unwrap(), adapter);
        let other: Vec<f32> = row.iter().map(|value| value + 1.0).collect();
        assert_eq!(adapter.with_row(&other).unwrap().to_lora().unwrap(), (lora, other));
        assert_eq!(adapter.with_row(&row[1..]), Err(AdapterFault::Row { expected: row.len(), got: row.len() - 1 }));
    }

    #[test]
    fn what_is_no_factor_is_refused_by_name() {
        let refused = |adapter: AdapterWeights, what: &str| {
            let error = adapter.to_lora().unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        let mut dora = adapter();
        dora.updates[1].magnitude = Some(vec![1.0; 5]);
        refused(dora, "`h.q` has magnitudes (DoRA)");
        let mut bias = adapter();
        bias.updates[0].b_bias = Some(vec![0.0; 4]);
        refused(bias, "`h.conv` has a bias");
        let head = WholeTensor { name: "head".to_owned(), shape: vec![1], values: vec![0.0] };
        refused(AdapterWeights { whole: vec![head], ..adapter() }, "replaces `head`");
    }
}
