//! Measures weight matching on networks of the sizes that people train.
//!
//! ```sh
//! cargo run --release -p weft-canon --example matching -- resnet-18
//! cargo run --release -p weft-canon --example matching -- vit-b --starts 1
//! cargo run --release -p weft-canon --example matching -- resnet-18 --raw --pair A.safetensors B.safetensors
//! ```
//!
//! Without files, two pairs of random weights are matched: independent ones, which leave the ascent most to do, and a network with
//! a transformed, noisy copy of itself, whose permutation is known. What is timed begins with the raw weights: continuous
//! symmetries fixed in both, then [`match_to`]; with `--raw` the weights are matched as they are. The peak of the memory counts everything that the process has held until then.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use weft_canon::{Canonicalizer, Element, Group, Matching, Step, match_to};
use weft_core::families::{Family, ResNet, Vit};
use weft_core::{Architecture, Seed};
use weft_testkit::random_row;

/// Noise on a copy, as a part of each tensor's root mean square.
const NOISE: f32 = 0.05;

const USAGE: &str = "usage: matching resnet-18|vit-b [--starts N] [--raw] [--pair A.safetensors B.safetensors]";

struct Options {
    architecture: Arc<Architecture>,
    matching: Matching,
    /// Whether continuous symmetries are left as they are.
    raw: bool,
    pair: Option<[String; 2]>,
}

#[derive(Debug)]
struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{USAGE}", self.0)
    }
}

impl Error for Usage {}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match options(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report_error(error.as_ref());
            if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program says what went wrong")]
fn report_error(error: &dyn Error) {
    eprintln!("error: {error}");
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let usage = |what: String| Usage(what);
    let name = arguments.next().unwrap_or_default();
    let family = match name.as_str() {
        "resnet-18" => Family::ResNet(ResNet::resnet18([3, 224, 224], 1000)),
        "vit-b" => Family::Vit(Vit {
            image: [3, 224, 224],
            patch: 16,
            d_model: 768,
            depth: 12,
            num_heads: 12,
            d_hidden: 3072,
            num_classes: 1000,
        }),
        _ => return Err(usage(format!("`{name}` is no network that is measured here")).into()),
    };
    let mut options = Options {
        architecture: Arc::new(family.build(&name)?),
        matching: Matching { starts: 1, ..Matching::default() },
        raw: false,
        pair: None,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| usage(format!("`{argument}` lacks a value")));
        match argument.as_str() {
            "--starts" => {
                let value = value()?;
                options.matching.starts = value.parse().map_err(|_| usage(format!("`{value}` is no number of starts")))?;
            }
            "--raw" => options.raw = true,
            "--pair" => options.pair = Some([value()?, value()?]),
            _ => return Err(usage(format!("`{argument}` is unknown")).into()),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<()> {
    let (architecture, seed) = (&options.architecture, Seed::new(7));
    let group = Group::derive(architecture.clone());
    if let Some([a, b]) = &options.pair {
        let [a, b] = [read(architecture, a)?, read(architecture, b)?];
        return measure(&group, options, "given pair", (&a, &b), None);
    }
    let a = random_row(architecture, seed.fork("a"));
    let b = random_row(architecture, seed.fork("b"));
    measure(&group, options, "independent weights", (&a, &b), None)?;
    drop(b);
    let (b, moved) = noisy_copy(&group, &a, seed.fork("copy"))?;
    measure(&group, options, "noisy copy", (&a, &b), Some(&moved))
}

/// Fixes and matches a pair, and prints what came of it.
#[expect(clippy::print_stdout, reason = "a program prints its figures")]
fn measure(group: &Group, options: &Options, what: &str, (a, b): (&[f32], &[f32]), moved: Option<&Element>) -> Result<()> {
    let seed = Seed::new(0);
    let since = Instant::now();
    let matching = options.matching;
    let fix = |row| Canonicalizer::fit_anchor(group.clone(), row, matching, seed);
    let both = if options.raw { None } else { Some((fix(a)?, fix(b)?)) };
    let fixed = since.elapsed().as_secs_f64();
    let (a, b) = both.as_ref().map_or((a, b), |(a, b)| (a.anchor(), b.anchor()));
    let (found, squared) = match_to(group, b, a, &matching, seed)?;
    let all = since.elapsed().as_secs_f64();
    let before = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt();
    println!(
        "{} ({:.1} M weights), {what}, {} start(s): {all:.2} s = {fixed:.2} s fixing + {:.2} s matching; distance {before:.3} → {:.3}; \
         peak memory {}",
        group.architecture().name(),
        a.len() as f64 / 1e6,
        matching.starts,
        all - fixed,
        squared.sqrt(),
        peak_memory(),
    );
    if let Some(moved) = moved {
        let spaces = || found.spaces.iter().zip(&moved.spaces);
        let right = |(found, moved): (&weft_canon::SpaceElement, &weft_canon::SpaceElement)| {
            found.permutation.iter().enumerate().filter(|&(i, &j)| moved.permutation[j as usize] as usize == i).count()
        };
        let (right, units) =
            (spaces().map(right).sum::<usize>(), spaces().map(|(found, _)| found.permutation.len()).sum::<usize>());
        println!("  units matched right: {right} of {units} ({:.2} %)", 100.0 * right as f64 / units as f64);
    }
    Ok(())
}

/// A network's image under a random transformation (rotations of streams aside), with noise; and what was done to its units.
fn noisy_copy(group: &Group, row: &[f32], seed: Seed) -> Result<(Vec<f32>, Element)> {
    let mut transform = group.random_transform(seed.fork("g"));
    transform.steps.retain(|step| !matches!(step, Step::Rotation(..)));
    let mut copy = row.to_vec();
    let mut noise = seed.fork("noise").normals(row.len());
    for tensor in group.architecture().tensors() {
        let values = &row[tensor.range()];
        let rms = (values.iter().map(|w| f64::from(w * w)).sum::<f64>() / values.len().max(1) as f64).sqrt() as f32;
        noise[tensor.range()].iter_mut().for_each(|z| *z *= NOISE * rms);
    }
    // Noise before the transformation: what fixes it then meets noise of the same size at every scale.
    copy.iter_mut().zip(&noise).for_each(|(w, z)| *w += z);
    drop(noise);
    group.transform_f32(&transform, &mut copy)?;
    let units = transform.steps.into_iter().filter_map(|step| if let Step::Units(element) = step { Some(element) } else { None });
    Ok((copy, units.fold(group.identity(), |first, after| group.compose(&after, &first))))
}

/// The weights of a file, by name; `num_batches_tracked` and what else the architecture lacks is left out.
fn read(architecture: &Architecture, path: &str) -> Result<Vec<f32>> {
    let bytes = std::fs::read(path)?;
    let file = safetensors::SafeTensors::deserialize(&bytes)?;
    let mut row = vec![0.0; architecture.num_parameters()];
    for spec in architecture.tensors() {
        let tensor = file.tensor(&spec.name)?;
        if tensor.dtype() != safetensors::Dtype::F32 || tensor.shape() != spec.shape.as_slice() {
            return Err(format!(
                "`{}` of {path} is {:?} {:?}, not F32 {:?}",
                spec.name,
                tensor.dtype(),
                tensor.shape(),
                spec.shape
            )
            .into());
        }
        let values = tensor.data().as_chunks::<4>().0;
        row[spec.range()].iter_mut().zip(values).for_each(|(w, bytes)| *w = f32::from_le_bytes(*bytes));
    }
    Ok(row)
}

/// The most memory that this process has held, as Linux counts it.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<f64>().ok());
    kib.map_or_else(|| "unknown".to_owned(), |kib| format!("{:.2} GB", kib * 1024.0 / 1e9))
}
