//! Generators that are told a recipe: whether samples are like networks that were trained by it, for recipes that nothing was learned from.
//!
//! A network is measured by a few figures (its norm, accuracy, sharpness). Of each held-out recipe, the mean figure of samples is set beside
//! that of the networks trained by it. What follows the recipe has the same *order* over recipes (Spearman's rank correlation) and the same
//! *values* (mean absolute difference, in standard deviations of the trained networks' means over recipes). The control is the same samples
//! taken for those of another recipe, the mean over all cyclic shifts of the recipes. Standard errors are the larger of that over recipes
//! (jackknife) and that over seeds; of a difference, both sides leave out the same recipes.

use crate::conditional::TaskRowKind;
use crate::figures::Estimate;
use crate::stats::{mean, std};
use crate::structure::jackknife;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The networks of one row, measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecipeMeasurements {
    /// The row's name.
    pub name: String,
    /// What it stands for.
    pub kind: TaskRowKind,
    /// Figures, `[seed][recipe][sample][figure]`.
    pub figures: Vec<Vec<Vec<Vec<f64>>>>,
}

/// How samples follow their recipes by one figure.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Agreement {
    /// Spearman's rank correlation with trained networks, over recipes.
    pub rank: Estimate,
    /// Mean absolute difference from trained networks, in standard deviations of their means over recipes.
    pub error: Estimate,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RecipeRow {
    /// Its name.
    pub name: String,
    /// What it stands for.
    pub kind: TaskRowKind,
    /// An entry a figure.
    pub agreement: Vec<Agreement>,
    /// Mean figures, `[recipe][figure]`.
    pub by_recipe: Vec<Vec<f64>>,
}

/// A generator beside its own samples taken for another recipe's.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RecipeVerdict {
    /// The generator.
    pub generator: String,
    /// By how much its rank correlation is higher, an entry a figure.
    pub rank_gain: Vec<Estimate>,
    /// Whether that is more than two standard errors above zero; else the figure *ignores the recipe*.
    pub follows: Vec<bool>,
}

/// What was found of held-out recipes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RecipeEvaluation {
    /// Names of the figures.
    pub figures: Vec<String>,
    /// The held-out recipes, by name.
    pub recipes: Vec<String>,
    /// The recipes that were learned from.
    pub num_trained: usize,
    /// Rows: trained networks first, half of them beside the other half.
    pub rows: Vec<RecipeRow>,
    /// What is said of each generator.
    pub verdicts: Vec<RecipeVerdict>,
}

/// Standard errors that a gain has to exceed.
const ERRORS: f64 = 2.0;

/// Draws the table and the verdicts from the figures of networks trained by held-out recipes, `[recipe][network][figure]`, and of rows.
///
/// Each generator gets a row of its control behind it.
///
/// # Errors
/// [`Error::TooFew`] for fewer than three recipes or two trained networks of one; [`Error::Length`] for a row that lacks a recipe or a figure.
pub fn evaluate_recipes(
    (figures, recipes): (&[&str], &[String]),
    num_trained: usize,
    trained: &[Vec<Vec<f64>>],
    rows: &[RecipeMeasurements],
) -> Result<RecipeEvaluation> {
    let n = recipes.len();
    if n < 3 {
        return Err(Error::TooFew { what: "held-out recipes", got: n, least: 3 });
    }
    let fewest = trained.iter().map(Vec::len).min().unwrap_or(0);
    if trained.len() != n || fewest < 2 {
        return Err(Error::TooFew { what: "networks trained by a held-out recipe", got: fewest, least: 2 });
    }
    let half = |parity: usize| trained.iter().map(|of| of.iter().skip(parity).step_by(2).cloned().collect()).collect::<Vec<_>>();
    let (yardstick, other_half) = (Table::new(&[trained.to_vec()], n, figures.len())?, Table::new(&[half(1)], n, figures.len())?);
    let first_half = Table::new(&[half(0)], n, figures.len())?;
    let row = |name: &str, kind, table: &Table, against: &Table, shifts: &[usize]| RecipeRow {
        name: name.to_owned(),
        kind,
        agreement: (0..figures.len()).map(|figure| table.agreement(against, figure, shifts)).collect(),
        by_recipe: table.mean.clone(),
    };
    let mut found = RecipeEvaluation {
        figures: figures.iter().map(|&name| name.to_owned()).collect(),
        recipes: recipes.to_vec(),
        num_trained,
        rows: vec![row("trained by the recipe, two halves", TaskRowKind::Runs, &first_half, &other_half, &[0])],
        verdicts: Vec::new(),
    };
    found.rows[0].by_recipe.clone_from(&yardstick.mean);
    let others: Vec<usize> = (1..n).collect();
    for measured in rows {
        let table = Table::new(&measured.figures, n, figures.len())?;
        found.rows.push(row(&measured.name, measured.kind, &table, &yardstick, &[0]));
        if measured.kind == TaskRowKind::Ours {
            let name = format!("{}, told another recipe", measured.name);
            found.rows.push(row(&name, TaskRowKind::Control, &table, &yardstick, &others));
            let gains: Vec<Estimate> = (0..figures.len()).map(|figure| table.gain(&yardstick, figure, &others)).collect();
            let follows = gains.iter().map(|gain| gain.mean > ERRORS * gain.se).collect();
            found.verdicts.push(RecipeVerdict { generator: measured.name.clone(), rank_gain: gains, follows });
        }
    }
    Ok(found)
}

/// Mean figures.
struct Table {
    /// `[seed][recipe][figure]`.
    seeds: Vec<Vec<Vec<f64>>>,
    /// Their means over seeds, `[recipe][figure]`.
    mean: Vec<Vec<f64>>,
}

impl Table {
    fn new(figures: &[Vec<Vec<Vec<f64>>>], recipes: usize, count: usize) -> Result<Self> {
        if let Some(seed) = figures.iter().find(|seed| seed.len() != recipes) {
            return Err(Error::Length { what: "figures of each recipe", expected: recipes, got: seed.len() });
        }
        let samples = || figures.iter().flatten();
        if figures.is_empty() || samples().any(Vec::is_empty) {
            return Err(Error::TooFew { what: "samples of a recipe", got: 0, least: 1 });
        }
        if let Some(sample) = samples().flatten().find(|sample| sample.len() != count) {
            return Err(Error::Length { what: "figures of a sample", expected: count, got: sample.len() });
        }
        let of_samples = |samples: &Vec<Vec<f64>>| {
            let of = |figure: usize| mean(&samples.iter().map(|sample| sample[figure]).collect::<Vec<_>>());
            (0..count).map(of).collect::<Vec<f64>>()
        };
        let seeds: Vec<Vec<Vec<f64>>> = figures.iter().map(|seed| seed.iter().map(of_samples).collect()).collect();
        let of_recipe = |recipe: usize| {
            let of = |figure: usize| mean(&seeds.iter().map(|seed| seed[recipe][figure]).collect::<Vec<_>>());
            (0..count).map(of).collect()
        };
        let mean = (0..recipes).map(of_recipe).collect();
        Ok(Self { seeds, mean })
    }

    /// The figure of samples told `shift` recipes further on, and of networks trained by each recipe that is kept.
    fn pairs(values: &[Vec<f64>], against: &Self, figure: usize, (shift, kept): (usize, &[usize])) -> [Vec<f64>; 2] {
        let n = values.len();
        let own = kept.iter().map(|&i| values[(i + shift) % n][figure]).collect();
        [own, kept.iter().map(|&i| against.mean[i][figure]).collect()]
    }

    /// An estimate of what the mean over shifts of a function of these pairs is.
    fn estimate(&self, against: &Self, figure: usize, of: impl Fn(&[Vec<f64>], &[usize]) -> f64) -> Estimate {
        debug_assert!(figure < against.mean[0].len(), "figure {figure}");
        let n = self.mean.len();
        let over_recipes = jackknife(n, |kept| of(&self.mean, kept));
        let all: Vec<usize> = (0..n).collect();
        let of_seeds: Vec<f64> = self.seeds.iter().map(|seed| of(seed, &all)).collect();
        let over_seeds = std(&of_seeds) / (of_seeds.len() as f64).sqrt();
        Estimate { mean: over_recipes.mean, se: over_recipes.se.max(over_seeds) }
    }

    fn rank(values: &[Vec<f64>], against: &Self, figure: usize, (shifts, kept): (&[usize], &[usize])) -> f64 {
        let of_shift = |&shift: &usize| {
            let [a, b] = Self::pairs(values, against, figure, (shift, kept));
            spearman(&a, &b)
        };
        mean(&shifts.iter().map(of_shift).collect::<Vec<_>>())
    }

    fn agreement(&self, against: &Self, figure: usize, shifts: &[usize]) -> Agreement {
        let spread = std(&against.mean.iter().map(|figures| figures[figure]).collect::<Vec<_>>()).max(f64::MIN_POSITIVE);
        let apart = |values: &[Vec<f64>], kept: &[usize]| {
            let of_shift = |&shift: &usize| {
                let [a, b] = Self::pairs(values, against, figure, (shift, kept));
                mean(&a.iter().zip(&b).map(|(a, b)| (a - b).abs() / spread).collect::<Vec<_>>())
            };
            mean(&shifts.iter().map(of_shift).collect::<Vec<_>>())
        };
        Agreement {
            rank: self.estimate(against, figure, |values, kept| Self::rank(values, against, figure, (shifts, kept))),
            error: self.estimate(against, figure, apart),
        }
    }

    /// How much more the rank correlation is than under other recipes.
    fn gain(&self, against: &Self, figure: usize, others: &[usize]) -> Estimate {
        self.estimate(against, figure, |values, kept| {
            Self::rank(values, against, figure, (&[0], kept)) - Self::rank(values, against, figure, (others, kept))
        })
    }
}

/// Spearman's rank correlation, ties by their mean rank; 0 where one side is constant.
fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let (mean_a, mean_b) = (mean(&a), mean(&b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(&b).map(|(a, b)| f(a - mean_a, b - mean_b)).sum::<f64>();
    let spread = (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
    if spread > 0.0 { sum(&|a, b| a * b) / spread } else { 0.0 }
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let below = |value: f64| values.iter().filter(|other| other.total_cmp(&value).is_lt()).count() as f64;
    let equal = |value: f64| values.iter().filter(|other| other.total_cmp(&value).is_eq()).count() as f64;
    values.iter().map(|&value| below(value) + (equal(value) - 1.0) / 2.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_correlations_are_those_of_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [2.5, 0.0, 2.5, 1.0]);
        assert!((spearman(&[1.0, 2.0, 3.0], &[1.0, 10.0, 1e9]) - 1.0).abs() < 1e-12);
        assert!((spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, -5.0]) + 1.0).abs() < 1e-12);
        // 1 − 6·Σd²/(n(n² − 1)) with d = 0, 1, 1.
        assert!((spearman(&[1.0, 2.0, 3.0], &[1.0, 3.0, 2.0]) - 0.5).abs() < 1e-12);
        assert!(spearman(&[1.0, 2.0, 3.0], &[5.0; 3]).abs() < 1e-12);
    }

    const RECIPES: usize = 8;

    /// Trained networks have the recipe's number as their first figure; the second is the same for all.
    fn evaluate(samples: impl Fn(usize, usize) -> f64) -> RecipeEvaluation {
        let recipes: Vec<String> = (0..RECIPES).map(|i| i.to_string()).collect();
        let trained: Vec<_> = (0..RECIPES).map(|i| vec![vec![i as f64 - 0.1, 1.0], vec![i as f64 + 0.1, 1.0]]).collect();
        let seed = |s: usize| (0..RECIPES).map(|i| vec![vec![samples(s, i), 2.0]; 2]).collect();
        let ours = RecipeMeasurements { name: "flow".to_owned(), kind: TaskRowKind::Ours, figures: (0..3).map(seed).collect() };
        evaluate_recipes((&["norm", "depth"], &recipes), 20, &trained, &[ours]).unwrap()
    }

    #[test]
    fn samples_that_follow_their_recipe_beat_those_told_another() {
        let found = evaluate(|seed, i| i as f64 + 0.5 + 0.1 * seed as f64);
        let [trained, ours, control] = &found.rows[..] else { panic!("three rows") };
        assert!((trained.agreement[0].rank.mean - 1.0).abs() < 1e-12 && (ours.agreement[0].rank.mean - 1.0).abs() < 1e-12);
        // All samples are .6 above on the mean over seeds; the numbers 0 to 7 have a deviation of √6.
        assert!((ours.agreement[0].error.mean - 0.6 / 6f64.sqrt()).abs() < 1e-9, "{:?}", ours.agreement);
        assert!(control.agreement[0].rank.mean < 0.0 && control.agreement[0].error.mean > 1.0, "{:?}", control.agreement);
        let verdict = &found.verdicts[0];
        assert_eq!(verdict.follows, [true, false], "{verdict:?}");
        assert!((verdict.rank_gain[0].mean - 1.0 + control.agreement[0].rank.mean).abs() < 1e-12);
    }

    #[test]
    fn samples_of_no_order_follow_nothing() {
        let order = [3, 6, 1, 4, 7, 0, 5, 2];
        let found = evaluate(|seed, i| f64::from(order[(3 * i + seed) % RECIPES]));
        assert_eq!(found.verdicts[0].follows, [false, false], "{:?}", found.verdicts);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        let trained = vec![vec![vec![1.0]; 2]; 3];
        let row = |figures| RecipeMeasurements { figures, ..RecipeMeasurements::default() };
        let evaluate = |names: &[String], trained: &[Vec<Vec<f64>>], row| evaluate_recipes((&["norm"], names), 9, trained, &[row]);
        assert!(evaluate(&names, &trained, row(vec![trained.clone()])).is_ok());
        assert!(matches!(evaluate(&names[..2], &trained, row(vec![])), Err(Error::TooFew { got: 2, least: 3, .. })));
        assert!(matches!(evaluate(&names, &vec![vec![vec![1.0]]; 3], row(vec![])), Err(Error::TooFew { got: 1, least: 2, .. })));
        assert!(matches!(evaluate(&names, &trained, row(vec![trained[..2].to_vec()])), Err(Error::Length { got: 2, .. })));
        assert!(matches!(evaluate(&names, &trained, row(vec![vec![vec![]; 3]])), Err(Error::TooFew { got: 0, .. })));
        assert!(matches!(evaluate(&names, &trained, row(vec![vec![vec![vec![1.0, 2.0]]; 3]])), Err(Error::Length { got: 2, .. })));
    }
}
