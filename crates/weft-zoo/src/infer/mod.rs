//! The architecture of a file, told from the names and shapes of its tensors.
//!
//! Names say the family, shapes most sizes. What leaves no trace in weights (heads, activations, strides, rotary angles)
//! is taken from settings beside the file, from the caller's [`Hints`], or assumed and noted; where no assumption is
//! safe, the error says what to give.

mod config;
mod patch;
mod sizes;

use crate::binding::naming::{Meaning, Naming};
use crate::binding::{Binding, Module, ModuleClass, Translation, chain, fit, misfit, translate};
use crate::{AdapterKind, Error, Result, Source, SourceFormat, TensorFault};
use config::Config;
use sizes::{Evidence, Unknown};
use std::collections::{BTreeMap, BTreeSet};
use weft_core::families::{Automaton, Family, Lora, LoraModule, Mlp};
use weft_core::{Activation, Architecture};

/// What the caller knows of a network.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hints {
    /// The architecture's name; without it, one is made of the family and its sizes.
    pub name: Option<String>,
    /// The activation.
    pub activation: Option<Activation>,
    /// The number of attention heads.
    pub num_heads: Option<usize>,
    /// Height and width of an image.
    pub image: Option<[usize; 2]>,
}

/// What a file was recognized as.
#[derive(Debug, Clone, PartialEq)]
pub struct Inferred {
    /// The architecture.
    pub architecture: Architecture,
    /// Its family and sizes, where they say all of it.
    pub family: Option<Family>,
    /// How the file's tensors are the architecture's.
    pub binding: Binding,
    /// What was assumed, for people.
    pub notes: Vec<String>,
}

/// A family with its sizes, and what differs from the family's own.
struct Found {
    family: Family,
    /// In place of the activation of hidden layers.
    activation: Option<Activation>,
    /// In place of the `ε` of layer norms.
    epsilon: Option<f64>,
    notes: Vec<String>,
}

/// Why one reading of a file failed; the reading that got furthest is reported.
enum Failure {
    /// Sizes are missing or contradict each other.
    Sizes(Unknown),
    /// The graph cannot be built.
    Graph(weft_core::Error),
    /// Tensors that do not fit the sizes told from others.
    Tensors(Box<Architecture>, Vec<(String, TensorFault)>),
}

const DECLARE: &str = "declare the architecture in a file and give it with `--architecture`";

/// Tells the architecture of a file, and how its tensors are the architecture's.
///
/// Weights are read only to see whether an output layer repeats the embedding.
///
/// # Errors
/// [`Error::NotInferred`] says what the file does not show and how to give it; [`Error::Misfit`] lists tensors that do not fit
/// the rest.
pub fn infer(source: &Source, hints: &Hints) -> Result<Inferred> {
    if source.adapter().is_some() {
        return adapter(source, hints);
    }
    if source.format() == SourceFormat::Hexells {
        return automaton(source, hints);
    }
    let config = Config::of(source)?;
    let mut furthest: Option<Failure> = None;
    let mut unknown: Option<(Naming, Translation)> = None;
    for naming in Naming::all() {
        let translation = translate(source, &format!("{} ({})", naming.name, naming.family), &|name| naming.meaning(name));
        if translation.pieces.is_empty() {
            continue;
        }
        if !translation.unknown.is_empty() {
            if unknown.as_ref().is_none_or(|(_, best)| translation.unknown.len() < best.unknown.len()) {
                unknown = Some((naming, translation));
            }
            continue;
        }
        match of_family(source, &naming, &translation, &config, hints)? {
            Ok(inferred) => return Ok(inferred),
            Err(failure) if furthest.as_ref().is_none_or(|best| failure.rank() > best.rank()) => furthest = Some(failure),
            Err(_) => {}
        }
    }
    if let Some(failure) = furthest {
        return Err(failure.error(source));
    }
    match in_order(source, hints)? {
        Some(inferred) => Ok(inferred),
        None => Err(unrecognized(source, unknown)),
    }
}

/// Reads a file as one family under one naming.
fn of_family(
    source: &Source,
    naming: &Naming,
    translation: &Translation,
    config: &Config,
    hints: &Hints,
) -> Result<Result<Inferred, Failure>> {
    let tied = tied(source, translation, config)?;
    let Naming { family, name, .. } = *naming;
    let evidence = Evidence { family, naming: name, tensors: translation, config, hints, tied };
    let Found { family, activation, epsilon, mut notes } = match evidence.sizes() {
        Ok(found) => found,
        Err(unknown) => return Ok(Err(Failure::Sizes(unknown))),
    };
    let name = hints.name.clone().unwrap_or_else(|| name_of(&family));
    let built = family.build(&name).and_then(|own| {
        let patched = patch::with(&own, activation, epsilon)?;
        let has = |tensor: &str| translation.pieces.contains_key(tensor);
        Ok((own, patch::without_absent(&patched, &has, &mut notes)?))
    });
    let (own, architecture) = match built {
        Ok(built) => built,
        Err(error) => return Ok(Err(Failure::Graph(error))),
    };
    Ok(match fit(translation, &architecture) {
        Ok(binding) => {
            let family = own.same_graph(&architecture).then_some(family);
            Ok(Inferred { architecture, family, binding, notes })
        }
        Err(faults) => Err(Failure::Tensors(Box::new(architecture), faults)),
    })
}

impl Failure {
    fn rank(&self) -> usize {
        match self {
            Self::Tensors(_, faults) if faults.len() > 2 => 0,
            Self::Graph(_) => 1,
            Self::Tensors(..) => 2,
            Self::Sizes(_) => 3,
        }
    }

    fn error(self, source: &Source) -> Error {
        let path = source.path().to_owned();
        match self {
            Self::Sizes((reason, hint)) => Error::NotInferred { path, reason, hint },
            Self::Graph(error) => Error::NotInferred { path, reason: error.to_string(), hint: DECLARE },
            Self::Tensors(architecture, faults) => misfit(source, &architecture, faults),
        }
    }
}

/// Whether the output layer repeats the embedding: it is not there, or has the same bits.
fn tied(source: &Source, translation: &Translation, config: &Config) -> Result<bool> {
    let head = translation.pieces.values().find_map(|piece| Some((piece, translation.pieces.get(piece.repeats.as_ref()?)?)));
    let Some((head, table)) = head else { return Ok(true) };
    if head.stored_shape != table.stored_shape {
        return Ok(false);
    }
    let (a, b) = (source.read(&head.stored)?, source.read(&table.stored)?);
    let differs = a.iter().zip(&b).position(|(a, b)| a.to_bits() != b.to_bits());
    match differs {
        Some(index) if config.tie_word_embeddings == Some(true) => {
            let fault = TensorFault::Repeat { of: table.stored.clone(), index };
            Err(Error::Tensor { path: source.path().to_owned(), tensor: head.stored.clone(), fault })
        }
        differs => Ok(differs.is_none()),
    }
}

/// Linear maps one after the other, or a built-in architecture whose shapes are the same.
fn in_order(source: &Source, hints: &Hints) -> Result<Option<Inferred>> {
    let Some(modules) = chain(source) else { return Ok(None) };
    let domain = |error| Error::Domain { origin: format!("`{}`", source.path().display()), source: error };
    if let [(ModuleClass::Linear, maps)] = modules.iter().collect::<Vec<_>>()[..] {
        let mut widths: Vec<usize> = maps.first().map(|map| map.shape[1]).into_iter().collect();
        widths.extend(maps.iter().map(|map| map.shape[0]));
        let mut notes = Vec::new();
        let activation = hints.activation.unwrap_or_else(|| {
            notes.push("ReLU is assumed: activations do not show in weights; `--activation` says otherwise".to_owned());
            Activation::Relu
        });
        let family = Family::Mlp(Mlp { widths, activation });
        let own = family.build(&hints.name.clone().unwrap_or_else(|| name_of(&family))).map_err(domain)?;
        let stored = |(i, map): (usize, &Module)| {
            let has = source.tensors().contains_key(&format!("{}.bias", map.name));
            has.then(|| format!("layers.{i}.bias"))
        };
        let biases: BTreeSet<String> = maps.iter().enumerate().filter_map(stored).collect();
        let has = |tensor: &str| biases.contains(tensor);
        let architecture = patch::without_absent(&own, &has, &mut notes).map_err(domain)?;
        let family = own.same_graph(&architecture).then_some(family);
        let binding = Binding::find(source, &architecture)?;
        return Ok(Some(Inferred { architecture, family, binding, notes }));
    }
    for name in crate::instances::instance_names() {
        let architecture = crate::instances::find_architecture(std::path::Path::new(name))?;
        if let Ok(binding) = Binding::find(source, &architecture) {
            let family = crate::instances::families().into_iter().find(|(known, _)| *known == name).map(|(_, family)| family);
            let what = "strides, pools, activations and the size of images do not show in weights and are taken from there";
            let notes = vec![format!("the shapes are those of the built-in `{name}`: {what}")];
            return Ok(Some(Inferred { architecture, family, binding, notes }));
        }
    }
    let count = |class| modules.get(&class).map_or(0, Vec::len);
    let reason = format!(
        "its shapes tell {} convolutions, {} linear maps and {} norms, but not strides, pools, activations and the size of images",
        count(ModuleClass::Convolution),
        count(ModuleClass::Linear),
        count(ModuleClass::BatchNorm) + count(ModuleClass::Norm)
    );
    Err(Error::NotInferred { path: source.path().to_owned(), reason, hint: DECLARE })
}

/// The modules of an adapter.
fn adapter(source: &Source, hints: &Hints) -> Result<Inferred> {
    let fail = |reason: String| Error::NotInferred {
        path: source.path().to_owned(),
        reason,
        hint: "adapters of plain low-rank updates of linear maps are read",
    };
    let Some(adapter) = source.adapter() else { return Err(fail("it is no adapter".to_owned())) };
    if let Some(whole) = adapter.replaced.keys().next() {
        return Err(fail(format!("it replaces `{whole}` as a whole")));
    }
    let (mut modules, mut names) = (Vec::with_capacity(adapter.modules.len()), BTreeMap::new());
    for module in &adapter.modules {
        let name = &module.module;
        if module.kind != AdapterKind::Linear || module.b_bias.is_some() {
            return Err(fail(format!("module `{name}` is an embedding or a convolution, or has a bias")));
        }
        if module.is_dora() {
            return Err(fail(format!("module `{name}` has a magnitude vector (DoRA)")));
        }
        let extent = |tensor: &str, axis: usize| source.tensors().get(tensor).and_then(|t| t.shape.get(axis).copied()).unwrap_or(0);
        names.insert(module.a.as_str(), format!("{name}.lora_A.weight"));
        names.insert(module.b.as_str(), format!("{name}.lora_B.weight"));
        let (fan_in, fan_out) = (extent(&module.a, 1), extent(&module.b, 0));
        modules.push(LoraModule { name: name.clone(), fan_in, fan_out, rank: module.rank, scaling: module.scaling });
    }
    let family = Family::Lora(Lora { modules });
    let name = hints.name.clone().unwrap_or_else(|| name_of(&family));
    let domain = |error| Error::Domain { origin: format!("`{}`", source.path().display()), source: error };
    let architecture = family.build(&name).map_err(domain)?;
    let meaning = |stored: &str| names.get(stored).map(|declared| Meaning::itself(declared));
    let translation = translate(source, "PEFT", &meaning);
    let binding = fit(&translation, &architecture).map_err(|faults| misfit(source, &architecture, faults))?;
    Ok(Inferred { architecture, family: Some(family), binding, notes: Vec::new() })
}

/// A texture automaton of hexells.
fn automaton(source: &Source, hints: &Hints) -> Result<Inferred> {
    let extent = |tensor: &str, axis: usize| source.tensors().get(tensor).and_then(|t| t.shape.get(axis).copied()).unwrap_or(0);
    let image = hints.image.unwrap_or([16, 16]);
    let family =
        Family::Automaton(Automaton { channels: extent("layers.1.weight", 0), width: extent("layers.0.weight", 0), image });
    let name = hints.name.clone().unwrap_or_else(|| name_of(&family));
    let domain = |error| Error::Domain { origin: format!("`{}`", source.path().display()), source: error };
    let architecture = family.build(&name).map_err(domain)?;
    let binding = Binding::find(source, &architecture)?;
    let [height, width] = image;
    let notes = vec![format!("one step is shown on {height}×{width} cells; the weights are the same for all sizes")];
    Ok(Inferred { architecture, family: Some(family), binding, notes })
}

fn unrecognized(source: &Source, closest: Option<(Naming, Translation)>) -> Error {
    let first = |names: &mut dyn Iterator<Item = &String>| names.take(5).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    let reason = match closest {
        // Half of the names or more: it is probably that, with something else beside it.
        Some((naming, translation)) if translation.unknown.len() <= translation.pieces.len() => format!(
            "it has the names of `{}` ({}), but {} of its tensors are not part of that, such as {}",
            naming.family,
            naming.name,
            translation.unknown.len(),
            first(&mut translation.unknown.iter())
        ),
        _ => format!("no family has tensors of such names, {}", first(&mut source.tensors().keys())),
    };
    Error::NotInferred { path: source.path().to_owned(), reason, hint: DECLARE }
}

/// A name made of what tells networks of a family apart.
fn name_of(family: &Family) -> String {
    let joined = |sizes: &[usize]| sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("-");
    let kind = family.name();
    match family {
        Family::Mlp(mlp) if mlp.widths.len() > 12 => format!("mlp-{}-layers", mlp.widths.len() - 1),
        Family::Mlp(mlp) => format!("mlp-{}", joined(&mlp.widths)),
        Family::Cnn(cnn) => format!("cnn-{}", joined(&cnn.layers.iter().map(|layer| layer.out).collect::<Vec<_>>())),
        Family::ResNet(resnet) => format!("{kind}-{}-{}", 2 * resnet.blocks * resnet.widths.len() + 2, joined(&resnet.widths)),
        Family::Vit(vit) => format!("{kind}-{}-{}-{}", vit.d_model, vit.depth, vit.patch),
        Family::Bert(bert) => format!("{kind}-{}-{}", bert.d_model, bert.depth),
        Family::Gpt(gpt) => format!("{kind}-{}-{}", gpt.d_model, gpt.depth),
        Family::Llama(llama) => format!("{kind}-{}-{}", llama.d_model, llama.depth),
        Family::Automaton(automaton) => format!("{kind}-{}-{}", automaton.channels, automaton.width),
        Family::Lora(lora) => {
            format!("{kind}-{}-modules-r{}", lora.modules.len(), lora.modules.iter().map(|m| m.rank).max().unwrap_or(0))
        }
    }
}
