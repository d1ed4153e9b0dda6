//! Weft as a library: trained weights in, new networks out.
//!
//! A run takes a zoo of networks through five stages, each with its own folder in the run's output: collect,
//! canonicalize, encode, generate, validate. [`config::RunConfig`] says what to do, [`run()`] does what is out
//! of date, and [`zoos`] looks after zoos on their own. Everything that the command line can do is a function
//! here; it only adds presentation.
//!
//! Nothing in this crate prints. Long work reports [`Event`]s to a [`Monitor`], which also carries the wish to
//! stop: a stopped or killed run goes on where it was when it is started again.
//!
//! # Examples
//! ```
//! use weft::config::RunConfig;
//! let config = RunConfig::quickstart(&["zoo.train.runs=8".to_owned()]).unwrap();
//! assert_eq!(config.run.name, "quickstart");
//! ```

pub mod activations;
pub mod adapters;
pub mod arch;
pub mod bench;
mod cache;
mod canonical;
pub mod config;
mod error;
pub mod proof;
pub mod report;
mod run;
mod samples;
mod stages;
pub mod structure;
pub mod text;
pub mod zoos;

pub use error::{Error, Kind, Result};
pub use run::{Outcome, Stage, StageOutcome, run};
pub use samples::{GeneratorName, GuideRequest, SampleOptions, SampleRequest, sample, sample_with};
pub use weft_core::{Event, Monitor};
