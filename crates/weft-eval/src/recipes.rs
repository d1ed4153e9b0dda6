//! Generators that are told a recipe: whether samples are like networks that were trained by it, for recipes that nothing was learned from.
//!
//! A network is measured by a few figures (its norm, accuracy, sharpness). Of each held-out recipe, the mean figure of samples is set beside
//! that of the networks trained by it. What follows the recipe has the same *order* over recipes (Spearman's rank correlation) and the same
//! *values* (mean absolute difference, in standard deviations of the trained networks' means over recipes). Two controls: the same samples
//! taken for those of the recipe half way round, and samples that are told no recipe. Standard errors are the larger of that over recipes
//! (jackknife) and that over seeds; of a difference, both sides leave out the same trained networks.
//!
//! (A mean over all exchanges of recipes would say nothing new of the order: it is `−ρ/(n − 1)` whatever the samples are.)

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
    /// For a control, the generator that it is of.
    pub of: Option<String>,
    /// Figures, `[seed][recipe][sample][figure]`.
    pub figures: Vec<Vec<Vec<Vec<f64>>>>,
}

/// How samples follow their recipes by one figure.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Agreement {
    /// Spearman's rank correlation with trained networks, over recipes.
    pub rank: Estimate,
    /// Mean absolute difference from trained networks, in standard deviations of their means over recipes; none if these are all the same.
    pub error: Option<Estimate>,
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

/// A generator beside its controls.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RecipeVerdict {
    /// The generator.
    pub generator: String,
    /// By how much its rank correlation is higher than each control's.
    pub gains: Vec<RecipeGain>,
    /// Whether all of these are more than two standard errors above zero, an entry a figure; else, and with fewer than five recipes, a figure
    /// is *not shown to follow* the recipe.
    pub follows: Vec<bool>,
}

/// A generator beside one control.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RecipeGain {
    /// The control.
    pub over: String,
    /// By how much the rank correlation is higher, an entry a figure.
    pub rank: Vec<Estimate>,
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
/// Recipes below which the right order comes by luck too often: of four, one order in 24 is right and has no error to be seen.
const LEAST: usize = 5;

/// Draws the table and the verdicts from the figures of networks trained by held-out recipes, `[recipe][network][figure]`, and of rows.
///
/// Each generator gets a row of its samples taken for another recipe's behind it.
///
/// # Errors
/// [`Error::TooFew`] for fewer than three recipes or two trained networks of one; [`Error::Length`] for a row that lacks a recipe or a figure.
pub fn evaluate_recipes(
    (figures, recipes): (&[&str], &[String]),
    num_trained: usize,
    trained: &[Vec<Vec<f64>>],
    rows: &[RecipeMeasurements],
) -> Result<RecipeEvaluation> {
    let (n, count) = (recipes.len(), figures.len());
    if n < 3 {
        return Err(Error::TooFew { what: "held-out recipes", got: n, least: 3 });
    }
    if trained.len() != n {
        return Err(Error::Length { what: "trained networks of each recipe", expected: n, got: trained.len() });
    }
    let fewest = trained.iter().map(Vec::len).min().unwrap_or(0);
    if fewest < 2 {
        return Err(Error::TooFew { what: "networks trained by a held-out recipe", got: fewest, least: 2 });
    }
    let half = |parity: usize| trained.iter().map(|of| of.iter().skip(parity).step_by(2).cloned().collect()).collect::<Vec<_>>();
    let table = |networks| Table::new(&[networks], n, count);
    let (yardstick, halves) = (table(trained.to_vec())?, [table(half(0))?, table(half(1))?]);
    let row = |name: &str, kind, table: &Table, against: &Table| RecipeRow {
        name: name.to_owned(),
        kind,
        agreement: (0..count).map(|figure| table.agreement(against, figure)).collect(),
        by_recipe: table.mean.clone(),
    };
    let mut found = RecipeEvaluation {
        figures: figures.iter().map(|&name| name.to_owned()).collect(),
        recipes: recipes.to_vec(),
        num_trained,
        rows: vec![row("trained by the recipe, two halves", TaskRowKind::Runs, &halves[0], &halves[1])],
        verdicts: Vec::new(),
    };
    found.rows[0].by_recipe.clone_from(&yardstick.mean);
    let tables = rows.iter().map(|row| Table::new(&row.figures, n, count)).collect::<Result<Vec<_>>>()?;
    for (measured, table) in rows.iter().zip(&tables) {
        found.rows.push(row(&measured.name, measured.kind, table, &yardstick));
        if measured.kind != TaskRowKind::Ours {
            continue;
        }
        let exchanged = (format!("{}, told another recipe", measured.name), table.half_way_round());
        found.rows.push(row(&exchanged.0, TaskRowKind::Control, &exchanged.1, &yardstick));
        let own = |(row, _): &(&RecipeMeasurements, &Table)| row.of.as_ref() == Some(&measured.name);
        let sampled = rows.iter().zip(&tables).filter(own).map(|(row, table)| (row.name.as_str(), table));
        let controls = [(exchanged.0.as_str(), &exchanged.1)].into_iter().chain(sampled);
        let gains: Vec<RecipeGain> = controls
            .map(|(name, control)| RecipeGain {
                over: name.to_owned(),
                rank: (0..count).map(|figure| table.gain(control, &yardstick, figure)).collect(),
            })
            .collect();
        let is_certain = |gain: &RecipeGain, figure: usize| gain.rank[figure].mean > ERRORS * gain.rank[figure].se;
        let follows = (0..count).map(|figure| n >= LEAST && gains.iter().all(|gain| is_certain(gain, figure))).collect();
        found.verdicts.push(RecipeVerdict { generator: measured.name.clone(), gains, follows });
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

    /// The same figures, each recipe's taken for those of the recipe half way round.
    fn half_way_round(&self) -> Self {
        let turned = |recipes: &Vec<Vec<f64>>| {
            let mut recipes = recipes.clone();
            let half = recipes.len() / 2;
            recipes.rotate_left(half);
            recipes
        };
        Self { seeds: self.seeds.iter().map(turned).collect(), mean: turned(&self.mean) }
    }

    /// What is computed from recipes that are kept: of the means over seeds, with the larger of the errors over recipes and over seeds.
    fn estimate(&self, of: impl Fn(&[Vec<f64>], Option<usize>, &[usize]) -> f64) -> Estimate {
        let n = self.mean.len();
        let over_recipes = jackknife(n, |kept| of(&self.mean, None, kept));
        let all: Vec<usize> = (0..n).collect();
        let of_seeds: Vec<f64> = self.seeds.iter().enumerate().map(|(s, seed)| of(seed, Some(s), &all)).collect();
        let over_seeds = std(&of_seeds) / (of_seeds.len() as f64).sqrt();
        Estimate { mean: over_recipes.mean, se: over_recipes.se.max(over_seeds) }
    }

    fn agreement(&self, against: &Self, figure: usize) -> Agreement {
        let spread = std(&column(&against.mean, figure, &(0..against.mean.len()).collect::<Vec<_>>()));
        let apart = |values: &[Vec<f64>], _: Option<usize>, kept: &[usize]| {
            let pairs = column(values, figure, kept).into_iter().zip(column(&against.mean, figure, kept));
            mean(&pairs.map(|(a, b)| (a - b).abs() / spread).collect::<Vec<_>>())
        };
        let rank = |values: &[Vec<f64>], _: Option<usize>, kept: &[usize]| rank(values, &against.mean, figure, kept);
        Agreement { rank: self.estimate(rank), error: (spread > 0.0).then(|| self.estimate(apart)) }
    }

    /// How much more the rank correlation is than a control's, seed by seed where there are as many.
    fn gain(&self, control: &Self, against: &Self, figure: usize) -> Estimate {
        let paired = control.seeds.len() == self.seeds.len();
        self.estimate(|values, seed, kept| {
            let other = seed.filter(|_| paired).map_or(&control.mean, |seed| &control.seeds[seed]);
            rank(values, &against.mean, figure, kept) - rank(other, &against.mean, figure, kept)
        })
    }
}

/// A figure of the recipes that are kept.
fn column(values: &[Vec<f64>], figure: usize, kept: &[usize]) -> Vec<f64> {
    kept.iter().map(|&recipe| values[recipe][figure]).collect()
}

fn rank(values: &[Vec<f64>], trained: &[Vec<f64>], figure: usize, kept: &[usize]) -> f64 {
    spearman(&column(values, figure, kept), &column(trained, figure, kept))
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
        let ours =
            RecipeMeasurements { name: "flow".to_owned(), kind: TaskRowKind::Ours, of: None, figures: (0..3).map(seed).collect() };
        let untold = |_| vec![vec![vec![3.0, 2.0]]; RECIPES];
        let untold = RecipeMeasurements {
            name: "flow, told no recipe".to_owned(),
            kind: TaskRowKind::Control,
            of: Some("flow".to_owned()),
            figures: (0..3).map(untold).collect(),
        };
        evaluate_recipes((&["norm", "depth"], &recipes), 20, &trained, &[ours, untold]).unwrap()
    }

    #[test]
    fn samples_that_follow_their_recipe_beat_those_told_another() {
        let found = evaluate(|seed, i| i as f64 + 0.5 + 0.1 * seed as f64);
        let [trained, ours, control, untold] = &found.rows[..] else { panic!("four rows") };
        assert!((trained.agreement[0].rank.mean - 1.0).abs() < 1e-12 && (ours.agreement[0].rank.mean - 1.0).abs() < 1e-12);
        // All samples are .6 above on the mean over seeds; the numbers 0 to 7 have a deviation of √6.
        assert!((ours.agreement[0].error.unwrap().mean - 0.6 / 6f64.sqrt()).abs() < 1e-9, "{:?}", ours.agreement);
        assert_eq!(ours.agreement[1].error, None, "trained networks are all the same");
        // Half way round, 0 to 7 is 4 to 7 and 0 to 3: Σd² = 8·16.
        assert!((control.agreement[0].rank.mean - (1.0 - 6.0 * 128.0 / 504.0)).abs() < 1e-12, "{:?}", control.agreement);
        assert!(untold.agreement[0].rank.mean.abs() < 1e-12 && control.agreement[0].error.unwrap().mean > 1.0);
        let verdict = &found.verdicts[0];
        assert_eq!(verdict.follows, [true, false], "{verdict:?}");
        let over: Vec<&str> = verdict.gains.iter().map(|gain| gain.over.as_str()).collect();
        assert_eq!(over, ["flow, told another recipe", "flow, told no recipe"]);
        assert!((verdict.gains[1].rank[0].mean - 1.0).abs() < 1e-12);
    }

    #[test]
    fn of_four_recipes_the_right_order_may_be_luck() {
        let names: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let trained: Vec<_> = (0..4).map(|i| vec![vec![f64::from(i)]; 2]).collect();
        let ours =
            RecipeMeasurements { name: "flow".to_owned(), kind: TaskRowKind::Ours, of: None, figures: vec![trained.clone()] };
        let verdict = &evaluate_recipes((&["norm"], &names), 9, &trained, &[ours]).unwrap().verdicts[0];
        assert!(!verdict.follows[0] && verdict.gains[0].rank[0].mean > 1.0, "{verdict:?}");
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
        assert!(matches!(evaluate(&names, &trained[..2], row(vec![])), Err(Error::Length { expected: 3, got: 2, .. })));
        assert!(matches!(evaluate(&names, &trained, row(vec![trained[..2].to_vec()])), Err(Error::Length { got: 2, .. })));
        assert!(matches!(evaluate(&names, &trained, row(vec![vec![vec![]; 3]])), Err(Error::TooFew { got: 0, .. })));
        assert!(matches!(evaluate(&names, &trained, row(vec![vec![vec![vec![1.0, 2.0]]; 3]])), Err(Error::Length { got: 2, .. })));
    }
}
