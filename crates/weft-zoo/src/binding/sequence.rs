//! Networks that are one layer after the other: what their modules are called does not matter, only their order.
//!
//! `layers.0`, `layers.1`; `fc1`, `fc2`; `0`, `2`, `4` of a sequence with activations in between; `features.0`,
//! `classifier.1`. Modules of one kind (convolution, linear map, norm) whose names differ in numbers alone stand in the
//! order of the numbers; groups of such modules, in the only order in which their widths meet.

use super::naming::Meaning;
use super::translation::{Translation, translate};
use crate::Source;
use std::collections::BTreeMap;
use weft_core::{Architecture, Op};

/// The kind of a module, told by its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ModuleClass {
    /// A weight of four axes.
    Convolution,
    /// A weight of two axes.
    Linear,
    /// A vector with running statistics.
    BatchNorm,
    /// A vector.
    Norm,
}

/// Tensors whose names agree up to the last part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    /// What the names agree in.
    pub(crate) name: String,
    /// The shape of its weight.
    pub(crate) shape: Vec<usize>,
}

/// More groups than this are not put in order.
const MAX_GROUPS: usize = 4;

/// Modules by class, unordered; none if some tensor belongs to no class.
fn classes<'a>(tensors: impl Iterator<Item = (&'a str, &'a [usize])>) -> Option<BTreeMap<ModuleClass, Vec<Module>>> {
    let mut modules: Vec<(&str, BTreeMap<&str, &[usize]>)> = Vec::new();
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, shape) in tensors {
        let (module, part) = name.rsplit_once('.')?;
        let at = *known.entry(module).or_insert_with(|| {
            modules.push((module, BTreeMap::new()));
            modules.len() - 1
        });
        modules[at].1.insert(part, shape);
    }
    let mut classes: BTreeMap<ModuleClass, Vec<Module>> = BTreeMap::new();
    for (name, parts) in modules {
        let shape = parts.get("weight")?;
        let class = match shape.len() {
            4 => ModuleClass::Convolution,
            2 => ModuleClass::Linear,
            1 if parts.contains_key("running_mean") => ModuleClass::BatchNorm,
            1 => ModuleClass::Norm,
            _ => return None,
        };
        classes.entry(class).or_default().push(Module { name: name.to_owned(), shape: shape.to_vec() });
    }
    Some(classes)
}

/// The modules of a file in the order of its layers, by class; none if that is not plain.
pub(crate) fn chain(source: &Source) -> Option<BTreeMap<ModuleClass, Vec<Module>>> {
    let weights = source.tensors().iter().filter(|(name, _)| !name.ends_with(".num_batches_tracked"));
    let classes = classes(weights.map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice())))?;
    classes.into_iter().map(|(class, modules)| Some((class, ordered(modules)?))).collect()
}

/// A name's text without its numbers, and the numbers.
fn skeleton(name: &str) -> (String, Vec<usize>) {
    let (mut text, mut numbers) = (String::new(), Vec::new());
    let mut rest = name;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = rest[at..].len() - rest[at..].trim_start_matches(|c: char| c.is_ascii_digit()).len();
        text.push_str(&rest[..at]);
        text.push('#');
        numbers.push(rest[at..at + digits].parse().unwrap_or(usize::MAX));
        rest = &rest[at + digits..];
    }
    text.push_str(rest);
    (text, numbers)
}

fn ordered(modules: Vec<Module>) -> Option<Vec<Module>> {
    let mut groups: BTreeMap<String, Vec<(Vec<usize>, Module)>> = BTreeMap::new();
    for module in modules {
        let (text, numbers) = skeleton(&module.name);
        groups.entry(text).or_default().push((numbers, module));
    }
    if groups.len() > MAX_GROUPS {
        return None;
    }
    let sorted = |mut group: Vec<(Vec<usize>, Module)>| {
        group.sort_by(|a, b| a.0.cmp(&b.0));
        group.into_iter().map(|(_, module)| module).collect::<Vec<_>>()
    };
    let mut groups: Vec<Vec<Module>> = groups.into_values().map(sorted).collect();
    if groups.len() == 1 {
        return groups.pop();
    }
    let mut orders = permutations(groups.len()).into_iter().filter_map(|order| {
        let all: Vec<&Module> = order.iter().flat_map(|&g| &groups[g]).collect();
        let meets = |pair: &[&Module]| matches!((pair[0].shape.first(), pair[1].shape.get(1)), (Some(a), Some(b)) if a == b);
        all.windows(2).all(meets).then(|| all.into_iter().cloned().collect::<Vec<_>>())
    });
    let first = orders.next();
    if orders.next().is_some() { None } else { first }
}

fn permutations(len: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for next in 0..len {
        all = all.iter().flat_map(|order: &Vec<usize>| (0..=order.len()).map(|at| inserted(order, at, next))).collect();
    }
    all
}

fn inserted(order: &[usize], at: usize, next: usize) -> Vec<usize> {
    let mut longer = order.to_vec();
    longer.insert(at, next);
    longer
}

/// The file's tensors under the architecture's names, module by module.
pub(super) fn translate_in_order(source: &Source, architecture: &Architecture) -> Option<Translation> {
    let joins =
        |op: &Op| matches!(op, Op::Add | Op::Mul | Op::Concat | Op::Slice { .. } | Op::Attention { .. } | Op::Embedding { .. });
    if architecture.nodes().iter().any(|node| joins(&node.op)) {
        return None;
    }
    let declared = classes(architecture.tensors().iter().map(|spec| (spec.name.as_str(), spec.shape.as_slice())))?;
    let found = chain(source)?;
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for (class, modules) in &found {
        let targets = declared.get(class).filter(|targets| targets.len() == modules.len())?;
        names.extend(modules.iter().zip(targets).map(|(module, target)| (module.name.as_str(), target.name.as_str())));
    }
    let meaning = |name: &str| {
        let (module, part) = name.rsplit_once('.')?;
        let known = matches!(part, "weight" | "bias" | "running_mean" | "running_var");
        names.get(module).filter(|_| known).map(|target| Meaning::itself(&format!("{target}.{part}")))
    };
    Some(translate(source, "numbered layers", &meaning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stand_where_their_widths_meet() {
        let check = |modules: &[(&str, [usize; 2])], expected: Option<&[&str]>| {
            let modules = modules.iter().map(|(name, shape)| Module { name: (*name).to_owned(), shape: shape.to_vec() }).collect();
            let names = ordered(modules).map(|all| all.into_iter().map(|module| module.name).collect::<Vec<_>>());
            assert_eq!(names, expected.map(|names| names.iter().map(ToString::to_string).collect()));
        };
        check(&[("10", [2, 3]), ("2", [3, 4])], Some(&["2", "10"]));
        check(&[("head", [2, 3]), ("fc1", [3, 4]), ("fc2", [3, 3])], Some(&["fc1", "fc2", "head"]));
        check(&[("hidden.0", [5, 4]), ("input", [4, 7]), ("output", [1, 5])], Some(&["input", "hidden.0", "output"]));
        // Either could come first.
        check(&[("a", [3, 3]), ("b", [3, 3])], None);
        check(&[("a", [3, 2]), ("b", [5, 4])], None);
        check(&[("a", [1, 1]), ("b", [1, 1]), ("c", [1, 1]), ("d", [1, 1]), ("e", [1, 1])], None);
    }
}
