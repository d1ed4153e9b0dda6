//! The stages that are matrix products with something between: PCA, weight matching, distances between orbits.
//!
//! Each figure says what share of its time the machine needs for its products alone, at its own rate; the rest is something
//! else, which the note names.

use super::limits::{best_double_rate, best_product_rate};
use super::peer::median;
use super::stages::{Bench, random};
use super::{Figure, secs};
use crate::Result;
use std::sync::Arc;
use weft_canon::distance::{Quotient, QuotientOptions};
use weft_canon::{Assigner, Group, Matching, match_counted};
use weft_codec::{Codec, CodecConfig, CodecKind, Normalization, Rank, Solver};
use weft_core::families::{Family, ResNet};
use weft_core::products::Place;
use weft_core::{Activation, Architecture, Population, Seed};

/// Turns; the median counts.
const TURNS: usize = 3;

/// The median of the seconds that some work takes in a few turns, the first of which is not counted.
fn median_secs<T>(mut work: impl FnMut() -> Result<T>) -> Result<f64> {
    work()?;
    let mut times = (0..TURNS).map(|_| Ok(secs(&mut work)?.0)).collect::<Result<Vec<_>>>()?;
    Ok(median(&mut times))
}

/// `12 GFLOP/s, 0.34 of the rate of products`; the rate is that of the cores, beside which a GPU's products are measured too.
fn share(flops: f64, secs: f64, rate: f64) -> String {
    format!("{:.0} GFLOP/s, {:.2} of the rate of products", flops / secs / 1e9, flops / secs / rate)
}

fn fit(place: &Place, networks: &Population, rank: usize) -> Result<Codec> {
    let kind = CodecKind::Pca { rank: Rank::Fixed(rank), solver: Solver::Gram };
    Ok(Codec::fit_on(place, networks, &CodecConfig { kind, normalize: Normalization::Off }, Seed::new(3))?)
}

/// An error if a device failed, whose products are measured: the cores would be instead.
fn check(place: &Place, bench: &Bench) -> Result<()> {
    let fail = |reason| weft_ops::Error::Device { device: bench.device.to_string(), reason };
    place.failure().map_or(Ok(()), |reason| Err(weft_net::Error::from(fail(reason)).into()))
}

/// PCA: what its two great products reach, and what share of a fit they are.
///
/// A fit is three things: the Gram matrix, its eigenvectors, and the components from them. Twice the weights are twice
/// the Gram matrix's work, and more components are more of the last alone, so that differences of fits time each.
pub(super) fn pca(bench: &Bench) -> Result<Vec<Figure>> {
    let count = bench.options.size(1_000).max(200);
    let twice = Arc::new(Architecture::mlp("784-64-32-10", &[784, 64, 32, 10], Activation::Relu)?);
    let (networks, wide) = (random(&bench.h1, count)?, random(&twice, count)?);
    let rank = count - count / 10;
    let (rate, place) = (best_double_rate(), bench.device.products()?);
    let [short, long, many] =
        [(&networks, 1), (&wide, 1), (&networks, rank)].map(|(networks, rank)| median_secs(|| fit(&place, networks, rank)));
    let (short, long, many) = (short?, long?, many?);
    // One half of the Gram matrix, with the diagonal.
    let gram = |dim: usize| (count * (count + 1) * dim) as f64;
    let further = wide.dim() - networks.dim();
    let gram_secs = (long - short) * networks.dim() as f64 / further as f64;
    let components = 2.0 * (count * (rank - 1) * networks.dim()) as f64;
    let (all, needed) = (gram(networks.dim()) + components, (gram(networks.dim()) + components) / rate);
    let codec = fit(&place, &networks, rank)?;
    let codes = codec.encode(networks.data())?;
    let projection = 2.0 * (count * rank * networks.dim()) as f64;
    let encode = median_secs(|| Ok(codec.encode(networks.data())?))?;
    let decode = median_secs(|| Ok(codec.decode(&codes)?))?;
    check(&place, bench)?;
    let single = best_product_rate();
    let size = format!("{count} × {}", networks.dim());
    Ok(vec![
        Figure::new(
            "PCA, fit",
            many,
            "s",
            format!(
                "{size}, rank {rank}: {}, f64; the rest is {:.3} s of eigenvectors",
                share(all, many, rate),
                (short - gram_secs).max(0.0)
            ),
        ),
        Figure::new("PCA, fit: products", needed / many, "", "of the time, if they ran at the machine's own rate"),
        Figure::new("PCA, Gram matrix", gram_secs, "s", format!("{}, f64", share(gram(networks.dim()), gram_secs, rate))),
        Figure::new("PCA, components", many - short, "s", format!("{}, f64", share(components, many - short, rate))),
        Figure::new("PCA, encode", encode, "s", format!("{size}, rank {rank}: {}, f32", share(projection, encode, single))),
        Figure::new("PCA, decode", decode, "s", format!("{}, f32", share(projection, decode, single))),
    ])
}

/// Weight matching of pairs of random networks, which leave the ascent most to do.
pub(super) fn matching(bench: &Bench) -> Result<Vec<Figure>> {
    let (rate, place) = (best_product_rate(), bench.device.products()?);
    let mlp = |name: &str, widths: &[usize]| Architecture::mlp(name, widths, Activation::Relu);
    let mut architectures = vec![mlp("784-512-10", &[784, 512, 10])?, mlp("784-512-512-512-10", &[784, 512, 512, 512, 10])?];
    if !bench.options.quick {
        architectures.push(Family::ResNet(ResNet::resnet18([3, 224, 224], 1000)).build("ResNet-18")?);
    }
    let mut figures = Vec::new();
    for architecture in architectures {
        let pair = random(&Arc::new(architecture), 2)?;
        let group = Group::derive(pair.architecture().clone()).on(&place);
        let matching = Matching { starts: 1, ..Matching::default() };
        let mut flops = 0.0;
        let time = median_secs(|| {
            flops = match_counted(&group, pair.row(0), pair.row(1), &matching, Seed::new(9))?.flops;
            Ok(())
        })?;
        let note = format!("one start; {}", share(flops, time, rate));
        figures.push(Figure::new(&format!("match {}", pair.architecture().name()), time, "s", note));
    }
    check(&place, bench)?;
    figures.push(assignment(512)?);
    Ok(figures)
}

/// The assignment problem that a matching of random units leaves.
fn assignment(units: usize) -> Result<Figure> {
    let cost: Vec<f64> = Seed::new(10).normals(units * units).into_iter().map(f64::from).collect();
    let mut assigner = Assigner::new();
    let time = median_secs(|| Ok(std::hint::black_box(assigner.solve(&cost, units)).len()))?;
    let note = format!("{units} units, on one thread: what bounds a matching of that width, once for each space and sweep");
    Ok(Figure::new("assignment problem", time * 1e3, "ms", note))
}

/// Distances between networks of H1 and the search for the nearest.
pub(super) fn distances(bench: &Bench) -> Result<Vec<Figure>> {
    let (queries, references) = (bench.options.size(40), bench.options.size(1_000));
    let quotient = Quotient::new(&Group::derive(bench.h1.clone()), QuotientOptions::default())?;
    let networks = random(&bench.h1, references + queries)?;
    let (of_references, of_queries) = networks.data().split_at(references * networks.dim());
    let [references, queries] = [of_references, of_queries].map(|rows| quotient.prepare(rows, None));
    let (references, queries) = (references?, queries?);
    let pairs: Vec<(usize, usize)> =
        (0..bench.options.size(2_000)).map(|i| (i % references.len(), i * 7 % references.len())).collect();
    let rate = best_product_rate();
    let pairwise = median_secs(|| Ok(quotient.pairwise(&references, &pairs)))? / pairs.len() as f64;
    let (search, _) = secs(|| Ok(quotient.nearest(&queries, &references, None)))?;
    // Of units alone: what the weights between the hidden layers add depends on how the ascent goes.
    let flops = 2.0 * 32.0 * (networks.dim() - 32 * 32) as f64;
    let at = |secs: f64| format!("{:.2} of the time for products of units at the machine's rate", flops / secs / rate);
    let each = search / (queries.len() * references.len()) as f64;
    Ok(vec![
        Figure::new("quotient distances", 1.0 / pairwise, "pairs/s", format!("784-32-32-10, 8 starts; {}", at(pairwise))),
        Figure::new(
            "nearest in the quotient",
            search,
            "s",
            format!("{} among {}, random; {}", queries.len(), references.len(), at(each)),
        ),
    ])
}
