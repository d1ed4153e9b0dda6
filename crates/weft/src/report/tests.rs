//! Tests of the whole page: well formed, self-contained and complete, whatever the figures are.

use super::data::*;
use super::page;
use super::sample::sample;
use crate::structure::SharpnessPoint;

/// Elements that HTML leaves unclosed.
const VOID: [&str; 3] = ["meta", "img", "br"];

/// Every tag of the page, without attributes, a slash before closing ones.
fn tags(html: &str) -> Vec<String> {
    let body = html.split_once("<!doctype html>").expect("the page begins with its document type").1;
    body.split('<')
        .skip(1)
        .map(|piece| piece.split_once('>').expect("every tag ends").0)
        .filter(|tag| !tag.ends_with('/'))
        .map(|tag| tag.split_whitespace().next().expect("every tag has a name").to_owned())
        .filter(|tag| !VOID.contains(&tag.as_str()))
        .collect()
}

/// Asserts what holds of every page.
fn check(html: &str) {
    let mut open: Vec<String> = Vec::new();
    for tag in tags(html) {
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop().as_deref(), Some(name), "tags nest"),
            None => open.push(tag),
        }
    }
    assert_eq!(open, Vec::<String>::new(), "every tag is closed");
    let words = html.split(|c: char| !c.is_alphanumeric());
    for word in words {
        assert!(!["NaN", "nan", "inf", "Infinity"].contains(&word), "`{word}` is no figure");
    }
    for outside in ["http:", "https:", "<script", "<link", "url(", "@import", "javascript:"] {
        assert!(!html.contains(outside), "`{outside}` on a self-contained page");
    }
    let ids: Vec<&str> = html.split(" id=\"").skip(1).filter_map(|s| s.split('"').next()).collect();
    let unique: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "ids are unique");
    for reference in html.split("aria-labelledby=\"").skip(1).filter_map(|s| s.split('"').next()).flat_map(str::split_whitespace) {
        assert!(unique.contains(reference), "`{reference}` names no element");
    }
    for link in html.split("href=\"#").skip(1).filter_map(|s| s.split('"').next()) {
        assert!(unique.contains(link), "`#{link}` leads nowhere");
    }
}

#[test]
fn every_part_and_every_row_is_on_the_page() {
    let report = sample();
    let html = page(&report);
    check(&html);
    for row in &report.evaluation.rows {
        assert!(html.contains(&format!("</span>{}</th>", row.name)), "{}", row.name);
    }
    let sections = [
        "verdict",
        "accuracy-distance",
        "npd",
        "filters",
        "rows",
        "parity",
        "ablation",
        "training",
        "canonicalization",
        "structure",
        "codec",
        "costs",
        "limits",
        "provenance",
    ];
    for id in sections {
        assert!(html.contains(&format!("<section id=\"{id}\"")), "{id}");
        assert!(html.contains(&format!("href=\"#{id}\"")), "{id}");
    }
    for text in ["Novel at ½ and ¾", "3 of 5", "data:image/png;base64,", "prefers-color-scheme: dark", "runs = 512", "2,560"] {
        assert!(html.contains(text), "{text}");
    }
}

#[test]
fn held_out_runs_come_first_in_every_table() {
    let mut report = sample();
    report.evaluation.rows.rotate_left(1);
    let html = page(&report);
    let first_names: Vec<&str> = html.split("<span class=\"no\">1</span>").skip(1).filter_map(|s| s.split('<').next()).collect();
    assert!(first_names.iter().filter(|name| **name == "held-out runs").count() >= 4, "{first_names:?}");
}

#[test]
fn an_empty_report_is_a_page() {
    let html = page(&Report::default());
    check(&html);
    assert!(html.contains("Weft report") && html.contains("No verdict"));
}

#[test]
fn names_cannot_carry_markup() {
    let hostile = "</td><script>alert('x')</script>&\"'";
    let mut report = sample();
    report.title = hostile.to_owned();
    report.zoo.name = hostile.to_owned();
    report.zoo.architecture = hostile.to_owned();
    report.zoo.dataset = hostile.to_owned();
    report.costs.machine = hostile.to_owned();
    report.provenance.config_toml = hostile.to_owned();
    report.provenance.weft_version = hostile.to_owned();
    report.provenance.seeds[0].name = hostile.to_owned();
    report.provenance.digests[0].value = hostile.to_owned();
    report.stages[0].name = hostile.to_owned();
    report.ablation[0].settings = hostile.to_owned();
    report.filters[0].name = hostile.to_owned();
    report.training[0].name = hostile.to_owned();
    report.training[0].loss = hostile.to_owned();
    if let Some(canon) = &mut report.canonicalization {
        canon.group = hostile.to_owned();
    }
    if let Some(structure) = &mut report.structure {
        structure.raw.spectra[1].name = hostile.to_owned();
        structure.dataset = Some(hostile.to_owned());
        structure.not_canonical = Some(hostile.to_owned());
    }
    if let Some(codec) = &mut report.codec {
        codec.kind = hostile.to_owned();
    }
    for row in &mut report.evaluation.rows {
        row.name = hostile.to_owned();
        row.curves[0].bar = hostile.to_owned();
    }
    for verdict in &mut report.evaluation.verdicts {
        verdict.ours = hostile.to_owned();
        verdict.baseline = hostile.to_owned();
        verdict.bar = hostile.to_owned();
    }
    for parity in &mut report.evaluation.parity {
        parity.generator = hostile.to_owned();
        parity.count = hostile.to_owned();
    }
    let html = page(&report);
    check(&html);
    assert!(!html.contains("alert('x')") && html.contains("&lt;script&gt;alert(&#39;x&#39;)"));
}

/// The sample with every figure replaced.
fn with_every_figure(v: f64) -> Report {
    let e = Estimate { mean: v, se: v };
    let mut report = sample();
    let evaluation = &mut report.evaluation;
    evaluation.thresholds = vec![v; 5];
    evaluation.units =
        Units { d1: v, f1: v, bar_median: v, bar_quartile: v, zoo_mean: v, zoo_std: v, orbit_check: v, ..Units::default() };
    for row in &mut evaluation.rows {
        row.accuracy_std = v;
        row.distance_quartiles = [v; 2];
        row.points = vec![(v, v), (0.5, v), (v, 0.5)];
        row.distance_weighted = Some(e);
        row.sample_secs = Some(v);
        row.fit_secs = Some(v);
        row.sample_run_equivalents = Some(v);
        row.fit_run_equivalents = Some(v);
        for figure in [
            &mut row.accuracy,
            &mut row.distance,
            &mut row.functional,
            &mut row.fellow_distance,
            &mut row.pairwise,
            &mut row.pairwise_functional,
            &mut row.disagreement,
            &mut row.max_iou,
            &mut row.vote_gain,
        ] {
            *figure = e;
        }
        for curve in &mut row.curves {
            *curve = ThresholdCurve { bar: curve.bar.clone(), accuracy: v, npd: vec![e; 5], np: vec![e; 2] };
        }
    }
    for verdict in &mut evaluation.verdicts {
        *verdict = Verdict { threshold: v, ours_npd: e, baseline_npd: e, held_out_npd: e, ..verdict.clone() };
    }
    for parity in &mut evaluation.parity {
        *parity = Parity { value: v, target: v, ..parity.clone() };
    }
    spoil_the_rest(&mut report, v);
    report
}

fn spoil_the_rest(report: &mut Report, v: f64) {
    let e = Estimate { mean: v, se: v };
    let both = BeforeAfter { before: e, after: e };
    let path = InterpolationPath { lambda: vec![v, 0.5, v], accuracy: vec![e; 3], loss: vec![e; 1], num_pairs: 0 };
    report.canonicalization = Some(Canonicalization {
        distance: both,
        barrier: Some(both),
        path_before: path.clone(),
        path_after: path,
        max_function_deviation: v,
        num_proven_in_f64: 0,
        mean_history: vec![v; 3],
        ..Canonicalization::default()
    });
    if let Some(structure) = &mut report.structure {
        for spectrum in &mut structure.raw.spectra {
            (spectrum.total_variance, spectrum.variances) = (v, vec![v; 5]);
            (spectrum.dimension.participation_ratio, spectrum.shuffled.entropy_rank, spectrum.random_basis) = (e, e, e);
        }
        (structure.raw.pairwise, structure.raw.barrier, structure.raw.mean_accuracy) = (e, Some(e), Some(v));
        structure
            .sharpness
            .iter_mut()
            .for_each(|point| *point = SharpnessPoint { scale: v, loss_increase: e, accuracy_decrease: e });
    }
    let rank = RankFigures { rank: 0, error_fitted: v, error_unseen: v, accuracy_fitted: e, accuracy_unseen: e };
    report.codec = Some(CodecFigures {
        kept_variance: v,
        spectrum: vec![v; 4],
        total_variance: v,
        ranks: vec![rank, RankFigures { rank: usize::MAX, ..rank }],
        accuracy_before: v,
        ..CodecFigures::default()
    });
    for curve in &mut report.training {
        curve.points = vec![(v, v), (1.0, v), (v, 1.0)];
    }
    for row in &mut report.ablation {
        *row = AblationRow {
            accuracy: e,
            distance: e,
            functional: e,
            pairwise: e,
            disagreement: e,
            run_equivalents: v,
            ..row.clone()
        };
    }
    for pair in &mut report.filters {
        pair.sampled[0] = vec![v as f32; 64];
        pair.distance = v;
        pair.accuracy = v;
        pair.nearest_accuracy = v;
    }
    for stage in &mut report.stages {
        stage.secs = v;
    }
    report.costs = Costs { fit_secs: Some(v), sample_secs: Some(v), sgd_secs: Some(v), zoo_secs: Some(v), ..Costs::default() };
}

#[test]
fn hostile_figures_neither_panic_nor_show() {
    let hostile =
        [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, 0.0, -0.0, -1.0, 1.0, 1e9];
    for v in hostile {
        check(&page(&with_every_figure(v)));
    }
}

#[test]
fn parts_may_be_missing_or_single() {
    let spoil: [fn(&mut Report); 11] = [
        |r| r.evaluation.rows.clear(),
        |r| r.evaluation.rows.truncate(1),
        |r| r.evaluation.rows.retain(|row| row.kind == RowKind::NullCopy),
        |r| r.evaluation.thresholds.clear(),
        |r| r.evaluation.verdicts.iter_mut().for_each(|v| v.ours = "gone".to_owned()),
        |r| r.evaluation.rows.iter_mut().for_each(|row| row.curves.clear()),
        |r| r.training.iter_mut().for_each(|c| c.points.truncate(1)),
        |r| r.filters.iter_mut().for_each(|f| f.side = 0),
        |r| r.codec = Some(CodecFigures::default()),
        |r| r.structure = Some(ZooStructure::default()),
        |r| r.structure.iter_mut().for_each(|s| s.canonical = None),
    ];
    for change in spoil {
        let mut report = sample();
        change(&mut report);
        check(&page(&report));
    }
}

#[test]
fn the_headline_says_what_was_found() {
    let with = |finding: Finding| {
        let mut report = sample();
        report.evaluation.verdicts.iter_mut().for_each(|v| v.finding = finding);
        page(&report)
    };
    assert!(with(Finding::Novel).contains("<p class=\"headline\">Novel at ¼, ½, ¾, 1 and 1½"));
    assert!(with(Finding::Matched).contains("<p class=\"headline\">Matched by a baseline"));
    assert!(with(Finding::Replay).contains("<p class=\"headline\">Replay"));
}

#[test]
fn limits_follow_from_the_figures() {
    let mut report = sample();
    assert!(page(&report).contains("Distances are exact"));
    report.evaluation.units.exact = false;
    report.evaluation.units.orbit_check = 0.3;
    report.evaluation.rows.iter_mut().for_each(|r| (r.num_seeds, r.pairwise.mean) = (1, 0.1));
    let html = page(&report);
    for text in ["Distances are upper bounds", "failed its own check", "There are few samples", "Samples are more alike than runs"]
    {
        assert!(html.contains(text), "{text}");
    }
}

#[test]
fn a_report_survives_its_json() {
    let report = sample();
    let json = serde_json::to_string(&report).expect("plain data serializes");
    let again: Report = serde_json::from_str(&json).expect("and comes back");
    assert_eq!(page(&report), page(&again));
    assert_eq!(report.zoo, again.zoo);
}
