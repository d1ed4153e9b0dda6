//! The group in words.

use super::{Commutant, Fold, Group, HiddenSpace, ScaleClass, Sign};
use std::fmt;

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.architecture().name();
        let discrete = self.spaces().iter().any(|s| s.size > 1 || s.sign());
        if self.dimension() == 0 && !discrete {
            return write!(f, "`{name}` has no hidden space: its group is trivial");
        }
        write!(f, "symmetries of `{name}`, {} continuous dimensions:", self.dimension())?;
        for space in self.spaces() {
            self.space(f, space)?;
        }
        for gauge in self.gauges() {
            let (blocks, size) = (gauge.blocks, gauge.size);
            let group = match gauge.commutant {
                Commutant::All => format!("GL({size})"),
                Commutant::Pairs(_) => format!("a rotation and a scale for each of {} rotary pairs", size / 2),
            };
            let each = if blocks == 1 { String::new() } else { format!(" for each of {blocks} heads") };
            write!(f, "\n  gauge `{}`: {group}{each}", gauge.name)?;
        }
        for rotation in self.rotations() {
            let (d, keeps) = (rotation.size, if rotation.keeps_ones { " that keep the sum over units" } else { "" });
            write!(f, "\n  stream `{}`: rotations O({d}){keeps} (described, left out of canonical forms)", rotation.name)?;
        }
        for fold in self.folds() {
            self.fold(f, fold)?;
        }
        Ok(())
    }
}

impl Group {
    fn space(&self, f: &mut fmt::Formatter<'_>, space: &HiddenSpace) -> fmt::Result {
        let of_heads =
            self.gauges().iter().any(|g| g.blocks * space.members == space.size && g.blocks > 1 && self.acts_in(g, space));
        match (space.size, of_heads) {
            (1, _) => write!(f, "\n  space `{}`, linear:", space.name)?,
            (size, true) => write!(f, "\n  space `{}`, {size} heads: permutation", space.name)?,
            (size, false) => write!(f, "\n  space `{}`, {size} units: permutation", space.name)?,
        }
        if space.members > 1 {
            write!(f, " of groups of {} and within them", space.members)?;
        }
        for class in &space.classes {
            write!(f, "{}", words(class, space))?;
        }
        let names = |inverse: bool| {
            let of = space.axes.iter().filter(|a| {
                let reads = if a.factors.is_empty() { a.axis == 1 } else { a.factors.iter().all(|f| f.inverse) };
                reads == inverse
            });
            of.map(|a| self.architecture().tensors()[a.tensor].name.as_str()).collect::<Vec<_>>()
        };
        let shorten = |names: Vec<&str>| match names.len() {
            0 => "nothing".to_owned(),
            1..=6 => names.join(", "),
            n => format!("{}, … ({n} tensors)", names[..4].join(", ")),
        };
        write!(f, "; written by {}; read by {}", shorten(names(false)), shorten(names(true)))
    }

    fn acts_in(&self, gauge: &super::Gauge, space: &HiddenSpace) -> bool {
        gauge.writers.iter().any(|w| space.axes.iter().any(|a| (a.tensor, a.axis) == (w.tensor, w.axis)))
    }

    fn fold(&self, f: &mut fmt::Formatter<'_>, fold: &Fold) -> fmt::Result {
        let name = |t: usize| self.architecture().tensors()[t].name.as_str();
        match fold {
            Fold::Shift { emitter, absorbers, .. } if absorbers.is_empty() => {
                write!(f, "\n  shift of `{}`: nothing sees it", name(*emitter))
            }
            Fold::Shift { emitter, absorbers, .. } => {
                let sink = |a: &super::Absorber| match a.sink {
                    super::Sink::Bias(t) | super::Sink::Rows(t, _) | super::Sink::Mean(t) => name(t),
                };
                write!(f, "\n  shift of `{}` into {}", name(*emitter), absorbers.iter().map(sink).collect::<Vec<_>>().join(", "))
            }
            Fold::Center { tensor, .. } => {
                write!(f, "\n  shift of `{}` along all units, which layer norm does not see", name(*tensor))
            }
            Fold::Unread { weight, .. } => {
                write!(f, "\n  shift of `{}` along what the layer norm before it never writes", name(*weight))
            }
            Fold::Constant { readers, bias, .. } => {
                let readers: Vec<&str> = readers.iter().map(|&t| name(t)).collect();
                write!(f, "\n  `{}` trades with {}", name(*bias), readers.join(", "))
            }
            Fold::Statistics { gain, .. } => {
                write!(f, "\n  statistics of the batch norm of `{}` trade with gain and bias", name(*gain))
            }
        }
    }
}

fn words(class: &ScaleClass, space: &HiddenSpace) -> String {
    let each = match (class.slots.len(), class.grouped) {
        (1, false) => "a unit".to_owned(),
        (n, false) if space.size == 1 => format!("for each of {n} directions"),
        (n, false) => format!("for each of {n} directions of a unit"),
        (n, true) => format!("for each of {n} directions of a group"),
    };
    match (class.positive, class.sign) {
        (true, Sign::Fixed) => format!(", positive scale {each}"),
        (true, _) => format!(", scale of either sign {each}"),
        (false, Sign::Free) => format!(", sign {each}"),
        (false, Sign::Common) => ", one sign for all units".to_owned(),
        (false, Sign::Fixed) => String::new(),
    }
}
