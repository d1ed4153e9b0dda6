//! Rows of an evaluation on held-out tasks that are shown by inputs without labels: a control, and what the same inputs are worth without a generator.

use super::conditional::{Bench, is_member, row};
use super::{examples, models, sample};
use crate::Result;
use weft_core::{ClassSet, Condition, InputSet, Population, Task};
use weft_eval::conditional::{TaskMeasurements, TaskRowKind};
use weft_gen::{Generator, TrainingSet};

/// Accuracies of samples that are told a draw of inputs of any class, `[task][sample]`; none where tasks are not shown by inputs.
pub(super) fn of_any(bench: &Bench, (generator, base): (&dyn Generator, &Condition), set: usize) -> Result<Option<Vec<Vec<f64>>>> {
    let Some(shown) = unlabelled(bench) else { return Ok(None) };
    let session = bench.session;
    let of_task = |(t, task): (usize, &Task)| {
        let seed = sample::seed_of(session, set).fork("any inputs").fork(task.name());
        let Some(told) = shown.show_any(base, seed.fork("draw")) else { return Ok(Vec::new()) };
        let networks = sample::draw(session, generator, session.config.sample.count, &told, seed)?;
        Ok(bench.predictions(&networks)?.iter().map(|said| bench.accuracy(t, said)).collect())
    };
    bench.tasks.iter().enumerate().map(of_task).collect::<Result<_>>().map(Some)
}

/// The training network whose condition, as encoded, is nearest to what each set of samples is shown.
pub(super) fn nearest(bench: &Bench, learnt: &TrainingSet, base: &Condition) -> Result<Option<TaskMeasurements>> {
    let (Some(shown), Some(told)) = (unlabelled(bench), &learnt.tasks) else { return Ok(None) };
    let of_set = |set: usize| {
        let of_task = |(t, task): (usize, &Task)| {
            let asked = models::ask(bench.session, Some(shown), base, (task, set))?;
            let asked = told.schema.encode(&asked)?;
            let apart = |i: usize| told.encoded(i).iter().zip(&asked).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            let all = (0..told.conditions.len()).map(|i| (i, apart(i)));
            let place = all.min_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(i, _)| i % learnt.finals.len());
            let said = bench.predictions(&learnt.finals.select(&[place]))?;
            Ok(said.iter().map(|said| bench.accuracy(t, said)).collect())
        };
        bench.tasks.iter().enumerate().map(of_task).collect::<Result<Vec<Vec<f64>>>>()
    };
    let accuracy = (0..bench.session.config.sample.seeds).map(of_set).collect::<Result<_>>()?;
    Ok(Some(row("nearest by what is shown", TaskRowKind::Baseline, accuracy)))
}

/// Networks of the data's own classes that read off the inputs which classes these are: such that they expect more than half an input of.
pub(super) fn grouped(bench: &Bench, networks: &Population) -> Result<Option<TaskMeasurements>> {
    let Some(shown) = unlabelled(bench) else { return Ok(None) };
    let classes = networks.architecture().num_outputs();
    let (logits, tests) = (bench.test_logits(networks)?, bench.num_tests());
    let of_draw = |(t, task): (usize, &Task), set: usize| {
        let drawn = shown.draw(task, examples::seed_of(bench.session, task, set));
        let inputs = InputSet::new(examples::inputs_of(bench.dataset, &drawn), drawn.len())?;
        let said = weft_net::logits(networks, inputs.inputs(), &bench.session.device)?;
        let each = said.chunks_exact(drawn.len() * classes).zip(logits.chunks_exact(tests * classes));
        each.map(|(of_inputs, of_tests)| {
            let found = expected(of_inputs, classes)?;
            let said: Vec<u32> = of_tests.chunks_exact(classes).map(|z| u32::from(is_member(z, &found))).collect();
            Ok(bench.accuracy(t, &said))
        })
        .collect::<Result<Vec<f64>>>()
    };
    let of_set = |set: usize| bench.tasks.iter().enumerate().map(|task| of_draw(task, set)).collect::<Result<Vec<_>>>();
    let accuracy = (0..bench.session.config.sample.seeds).map(of_set).collect::<Result<_>>()?;
    Ok(Some(row("one network of all classes, told by the inputs", TaskRowKind::Baseline, accuracy)))
}

/// What shows tasks, if that is inputs without labels.
fn unlabelled<'a>(bench: &'a Bench) -> Option<&'a examples::Shown> {
    bench.shown.as_ref().filter(|shown| shown.labelled().is_none())
}

/// The task of the classes whose probabilities over the inputs add up to more than one half; of all but the least likely where that is every class, and of
/// the likeliest where it is none.
fn expected(logits: &[f32], classes: usize) -> Result<Task> {
    let mut sums = vec![0.0_f64; classes];
    for z in logits.chunks_exact(classes) {
        let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f64> = z.iter().map(|z| f64::from(z - max).exp()).collect();
        let all: f64 = weights.iter().sum();
        sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight / all);
    }
    let mut order: Vec<usize> = (0..classes).collect();
    order.sort_by(|&a, &b| sums[b].total_cmp(&sums[a]));
    let count = sums.iter().filter(|sum| **sum > 0.5).count().clamp(1, classes - 1);
    Ok(Task::is_one_of(&ClassSet::new(order[..count].iter().map(|&class| class as u32))?, classes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_count_that_more_than_half_an_input_is_of() {
        let sure = |class: usize| (0..4).map(|c| if c == class { 20.0 } else { 0.0 }).collect::<Vec<f32>>();
        let name = |logits: &[Vec<f32>]| expected(&logits.concat(), 4).unwrap().name().to_owned();
        assert_eq!(name(&[sure(2), sure(0), sure(2)]), "0+2");
        // Of an input between two classes neither has more than half, and the likelier is taken.
        assert_eq!(name(&[vec![0.0, 1.0, 1.5, 0.0]]), "2");
        assert_eq!(name(&[sure(3), sure(0), sure(1), sure(2), sure(3), sure(1), sure(2)]), "1+2+3", "a task leaves a class");
    }
}
