//! Which nodes run, and how long their values live.

use weft_core::Architecture;

/// What is known of a graph before it runs.
#[derive(Debug)]
pub(super) struct Plan {
    /// Whether a node is asked for or an asked one depends on it.
    pub(super) runs: Vec<bool>,
    /// Whether a node's values are asked for.
    pub(super) captured: Vec<bool>,
    /// The last node that reads a node's values.
    pub(super) last_reader: Vec<Option<usize>>,
    /// The most values of one example that live at a time.
    pub(super) live_values: usize,
}

impl Plan {
    pub(super) fn new(architecture: &Architecture, nodes: &[usize]) -> Self {
        let graph = architecture.nodes();
        let mut captured = vec![false; graph.len()];
        for &node in nodes {
            captured[node] = true;
        }
        let (mut runs, mut last_reader) = (captured.clone(), vec![None; graph.len()]);
        for (at, node) in graph.iter().enumerate().rev() {
            if !runs[at] {
                continue;
            }
            for &input in &node.inputs {
                runs[input] = true;
                last_reader[input] = last_reader[input].or(Some(at));
            }
        }
        let mut plan = Self { runs, captured, last_reader, live_values: 0 };
        plan.live_values = plan.count_live(architecture);
        plan
    }

    /// Whether a node's values are not needed after a reader.
    pub(super) fn is_dead_after(&self, node: usize, reader: usize) -> bool {
        self.last_reader[node].is_none_or(|last| last <= reader)
    }

    fn count_live(&self, architecture: &Architecture) -> usize {
        let widths = architecture.widths();
        let (mut live, mut most) = (0_usize, 0_usize);
        for (at, node) in architecture.nodes().iter().enumerate().filter(|(at, _)| self.runs[*at]) {
            live = live.saturating_add(widths[at]);
            // Attention and convolutions lay their operands out anew.
            let operands = node.inputs.iter().map(|&i| widths[i]).fold(0_usize, usize::saturating_add);
            most = most.max(live.saturating_add(operands));
            let mut inputs = node.inputs.clone();
            inputs.sort_unstable();
            inputs.dedup();
            for &input in inputs.iter().filter(|&&input| self.is_dead_after(input, at)) {
                live -= widths[input];
            }
            if self.last_reader[at].is_none() {
                live -= widths[at];
            }
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::{Activation, Architecture};

    #[test]
    fn values_live_until_their_last_reader() {
        // input 4 → 5 → relu → 3 → relu → 2
        let mlp = Architecture::mlp("m", &[4, 5, 3, 2], Activation::Relu).unwrap();
        let plan = Plan::new(&mlp, &[5]);
        assert_eq!(plan.last_reader, [Some(1), Some(2), Some(3), Some(4), Some(5), None]);
        // The most are held while the first activation runs: 5 + 5, and its operand counts twice.
        assert_eq!(plan.live_values, 15);
        let plan = Plan::new(&mlp, &[2]);
        assert_eq!(plan.runs, [true, true, true, false, false, false]);
        assert!(plan.is_dead_after(1, 2) && !plan.is_dead_after(0, 0));
    }
}
