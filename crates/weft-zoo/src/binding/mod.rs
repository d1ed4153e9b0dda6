//! Which tensor of a file is which tensor of an architecture.
//!
//! The same network is stored under many names and in several layouts: fused, transposed, with extra axes of
//! length 1. A [`Binding`] says for every tensor of an architecture where its values lie in files of one layout. It
//! works both ways: [`Binding::bind`] reads a file as a flat row, [`Binding::unbind`] gives a row back under the
//! names and in the layout of the file.
//!
//! [`Binding::find`] tries the architecture's own names, then every table of [`naming`], then numbered modules in their
//! order, and takes the first that fits without a fault.

mod fit;
pub(crate) mod naming;
mod sequence;
mod translation;

pub(crate) use fit::fit;
pub(crate) use sequence::{Module, ModuleClass, chain};
pub(crate) use translation::{Translation, translate};

use crate::tensors::first_non_finite;
use crate::{Error, Result, Source, TensorFault};
use naming::{Meaning, Naming};
use std::collections::BTreeSet;
use std::ops::Range;
use weft_core::Architecture;

/// The most faults that an error lists.
const MAX_FAULTS: usize = 10;

/// A tensor as a file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name in the file.
    pub name: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
}

impl StoredTensor {
    /// Reads its values, if it is there and has its shape.
    pub(crate) fn read_into(&self, source: &Source, values: &mut Vec<f32>) -> Result<()> {
        let found = source.tensors().get(&self.name).ok_or_else(|| self.fault(source, TensorFault::Missing))?;
        if found.shape != self.shape {
            let (expected, got) = (self.shape.clone(), found.shape.clone());
            return Err(self.fault(source, TensorFault::Shape { expected, got }));
        }
        source.read_into(&self.name, values)
    }

    fn fault(&self, source: &Source, fault: TensorFault) -> Error {
        Error::Tensor { path: source.path().to_owned(), tensor: self.name.clone(), fault }
    }
}

/// Where the values of one tensor of an architecture lie in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Index of the stored tensor.
    pub stored: usize,
    /// Whether the stored tensor is to be transposed first.
    pub transposed: bool,
    /// The stretch of its values, after that.
    pub values: Range<usize>,
}

/// A stored tensor that repeats one of the architecture's: a tied output layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat {
    /// The tensor in the file.
    pub stored: StoredTensor,
    /// Index of the architecture's tensor.
    pub of: usize,
}

impl Repeat {
    /// The error for a value that differs from what it repeats.
    pub(crate) fn fault(&self, source: &Source, architecture: &Architecture, index: usize) -> Error {
        self.stored.fault(source, TensorFault::Repeat { of: architecture.tensors()[self.of].name.clone(), index })
    }
}

/// Where every tensor of an architecture lies in files of one layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    naming: String,
    stored: Vec<StoredTensor>,
    parts: Vec<Part>,
    repeats: Vec<Repeat>,
    ignored: Vec<String>,
}

impl Binding {
    /// The naming of a file that has the architecture's own names.
    pub const OWN: &str = "its own";

    /// Finds how a file's tensors are an architecture's.
    ///
    /// Only names, shapes and types are looked at.
    ///
    /// # Errors
    /// [`Error::Misfit`] lists the tensors that are missing, unknown, misshapen or no weights, for the naming that
    /// comes closest.
    pub fn find(source: &Source, architecture: &Architecture) -> Result<Self> {
        let declared: BTreeSet<&str> = architecture.tensors().iter().map(|spec| spec.name.as_str()).collect();
        let own = translate(source, Self::OWN, &|name| declared.contains(name).then(|| Meaning::itself(name)));
        let namings = Naming::all();
        let tables = namings.iter().map(|naming| {
            let label = format!("{} ({})", naming.name, naming.family);
            translate(source, &label, &|name| naming.meaning(name))
        });
        let sequence = sequence::translate_in_order(source, architecture);
        let mut closest: Option<Vec<(String, TensorFault)>> = None;
        for translation in std::iter::once(own).chain(tables).chain(sequence) {
            match fit(&translation, architecture) {
                Ok(binding) => return Ok(binding),
                Err(faults) if closest.as_ref().is_none_or(|best| faults.len() < best.len()) => closest = Some(faults),
                Err(_) => {}
            }
        }
        Err(misfit(source, architecture, closest.unwrap_or_default()))
    }

    /// Puts a binding together; [`Binding::check`] says whether it is one.
    pub(crate) fn new(
        naming: String,
        stored: Vec<StoredTensor>,
        parts: Vec<Part>,
        repeats: Vec<Repeat>,
        ignored: Vec<String>,
    ) -> Self {
        Self { naming, stored, parts, repeats, ignored }
    }

    /// Checks that every tensor of an architecture has its values, and every stored value belongs to one.
    pub(crate) fn check(&self, architecture: &Architecture) -> Result<(), String> {
        if self.parts.len() != architecture.tensors().len() {
            return Err(format!(
                "it has {} parts, `{}` has {} tensors",
                self.parts.len(),
                architecture.name(),
                architecture.tensors().len()
            ));
        }
        let mut sizes = Vec::with_capacity(self.stored.len());
        for tensor in &self.stored {
            let size = tensor.shape.iter().try_fold(1_usize, |size, &axis| size.checked_mul(axis));
            sizes.push(size.ok_or_else(|| format!("`{}` of shape {:?} is absurd", tensor.name, tensor.shape))?);
        }
        let mut stretches: Vec<Vec<(usize, usize, bool)>> = vec![Vec::new(); self.stored.len()];
        for (part, spec) in self.parts.iter().zip(architecture.tensors()) {
            let Range { start, end } = part.values;
            let here = stretches.get_mut(part.stored).filter(|_| end.checked_sub(start) == Some(spec.num_values()));
            here.ok_or_else(|| format!("the part of `{}` has not its number of values", spec.name))?.push((
                start,
                end,
                part.transposed,
            ));
        }
        for ((tensor, size), mut stretches) in self.stored.iter().zip(sizes).zip(stretches) {
            stretches.sort_unstable();
            let ends = stretches.iter().map(|&(_, end, _)| end);
            let meets =
                std::iter::once(0).chain(ends).zip(stretches.iter().map(|&(start, ..)| start).chain([size])).all(|(a, b)| a == b);
            let transposed = stretches.first().is_some_and(|&(.., transposed)| transposed);
            if !meets || stretches.iter().any(|&(.., t)| t != transposed) || (transposed && tensor.shape.len() != 2) {
                return Err(format!("the parts of `{}` overlap, leave values out, or differ in being transposed", tensor.name));
            }
        }
        let repeats = |repeat: &Repeat| architecture.tensors().get(repeat.of).is_some_and(|spec| spec.shape == repeat.stored.shape);
        if self.repeats.iter().all(repeats) { Ok(()) } else { Err("a repeat has not the shape of what it repeats".to_owned()) }
    }

    /// Whose names the file has, for people.
    #[must_use]
    pub fn naming(&self) -> &str {
        &self.naming
    }

    /// The stored tensors that hold weights, repeats aside.
    #[must_use]
    pub fn stored(&self) -> &[StoredTensor] {
        &self.stored
    }

    /// Where each tensor of the architecture lies.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Stored tensors that repeat others.
    #[must_use]
    pub fn repeats(&self) -> &[Repeat] {
        &self.repeats
    }

    /// Stored tensors that are no weights: counters, masks and tables that follow from the sizes.
    #[must_use]
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Reads a file's weights as a flat row in the architecture's order.
    ///
    /// # Errors
    /// [`Error::Tensor`] names the first tensor that is missing, has another shape than the binding was made for, or a
    /// value that is not finite, and a repeated one that differs from what it repeats.
    ///
    /// # Panics
    /// If the binding was made for another architecture.
    pub fn bind(&self, source: &Source, architecture: &Architecture) -> Result<Vec<f32>> {
        self.gather(source, architecture, false)
    }

    /// The same for weights that need not be finite: to be quarantined, not to be run.
    ///
    /// # Errors
    /// As [`Binding::bind`], but for values that are not finite.
    ///
    /// # Panics
    /// As [`Binding::bind`].
    pub fn bind_any(&self, source: &Source, architecture: &Architecture) -> Result<Vec<f32>> {
        self.gather(source, architecture, true)
    }

    fn gather(&self, source: &Source, architecture: &Architecture, any: bool) -> Result<Vec<f32>> {
        assert_eq!(self.parts.len(), architecture.tensors().len(), "a binding of another architecture");
        let fail = |tensor: &StoredTensor, fault| tensor.fault(source, fault);
        let mut row = Vec::new();
        let len = architecture.num_parameters();
        if let Some(first) = self.stored.first() {
            row.try_reserve_exact(len).map_err(|_| fail(first, TensorFault::Memory { values: len }))?;
        }
        row.resize(len, 0.0);
        let mut values = Vec::new();
        let read = |tensor: &StoredTensor, values: &mut Vec<f32>| {
            tensor.read_into(source, values)?;
            match first_non_finite(values).filter(|_| !any) {
                Some(index) => Err(fail(tensor, TensorFault::NonFinite { index })),
                None => Ok(()),
            }
        };
        let parts_of = self.parts_of();
        for (stored, tensor) in self.stored.iter().enumerate() {
            read(tensor, &mut values)?;
            let here = &parts_of[stored];
            if here.iter().any(|&i| self.parts[i].transposed) {
                values = transposed(&values, &tensor.shape);
            }
            for &i in here {
                row[architecture.tensors()[i].range()].copy_from_slice(&values[self.parts[i].values.clone()]);
            }
        }
        for repeat in &self.repeats {
            read(&repeat.stored, &mut values)?;
            let spec = &architecture.tensors()[repeat.of];
            let differs = values.iter().zip(&row[spec.range()]).position(|(a, b)| a.to_bits() != b.to_bits());
            if let Some(index) = differs {
                return Err(repeat.fault(source, architecture, index));
            }
        }
        Ok(row)
    }

    /// The values of a stored tensor, transposed if those of its parts are.
    pub(crate) fn stored_values(&self, source: &Source, stored: usize) -> Result<Vec<f32>> {
        let tensor = &self.stored[stored];
        let mut values = Vec::new();
        tensor.read_into(source, &mut values)?;
        let is_transposed = self.parts.iter().any(|part| part.stored == stored && part.transposed);
        Ok(if is_transposed { transposed(&values, &tensor.shape) } else { values })
    }

    /// The tensors of a row under the names and in the layout of the file: name, shape and values.
    ///
    /// Tensors that are no weights are not among them.
    ///
    /// # Panics
    /// If the binding was made for another architecture, or the row has not as many values as that has weights.
    #[must_use]
    pub fn unbind(&self, architecture: &Architecture, row: &[f32]) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        assert_eq!(self.parts.len(), architecture.tensors().len(), "a binding of another architecture");
        assert_eq!(row.len(), architecture.num_parameters(), "weights of another architecture");
        let parts_of = self.parts_of();
        let mut tensors = Vec::with_capacity(self.stored.len() + self.repeats.len());
        for (stored, tensor) in self.stored.iter().enumerate() {
            let mut values = vec![0.0; tensor.shape.iter().product()];
            for &i in &parts_of[stored] {
                values[self.parts[i].values.clone()].copy_from_slice(&row[architecture.tensors()[i].range()]);
            }
            if parts_of[stored].iter().any(|&i| self.parts[i].transposed) {
                let shape: Vec<usize> = tensor.shape.iter().rev().copied().collect();
                values = transposed(&values, &shape);
            }
            tensors.push((tensor.name.clone(), tensor.shape.clone(), values));
        }
        for repeat in &self.repeats {
            let values = row[architecture.tensors()[repeat.of].range()].to_vec();
            tensors.push((repeat.stored.name.clone(), repeat.stored.shape.clone(), values));
        }
        tensors
    }

    /// The parts of each stored tensor.
    fn parts_of(&self) -> Vec<Vec<usize>> {
        let mut parts_of = vec![Vec::new(); self.stored.len()];
        for (i, part) in self.parts.iter().enumerate() {
            parts_of[part.stored].push(i);
        }
        parts_of
    }
}

/// The side of a square of values that lies in the cache.
const SIDE: usize = 32;

/// The values of a matrix, column by column.
fn transposed(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let (rows, columns) = (shape.first().copied().unwrap_or(1), shape.get(1).copied().unwrap_or(1));
    let mut out = vec![0.0; values.len()];
    for top in (0..rows).step_by(SIDE) {
        for left in (0..columns).step_by(SIDE) {
            for r in top..rows.min(top + SIDE) {
                for c in left..columns.min(left + SIDE) {
                    out[c * rows + r] = values[r * columns + c];
                }
            }
        }
    }
    out
}

/// An error that lists the first faults.
pub(crate) fn misfit(source: &Source, architecture: &Architecture, mut faults: Vec<(String, TensorFault)>) -> Error {
    let total = faults.len();
    faults.truncate(MAX_FAULTS);
    Error::Misfit { path: source.path().to_owned(), architecture: architecture.name().to_owned(), faults, total }
}
