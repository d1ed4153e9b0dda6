//! The report page: what a run found, as one self-contained HTML file.
//!
//! [`data::Report`] is plain data, serialized as it is into `report.json`; [`page()`] turns it into
//! `report.html`. The page makes no request, runs no script and is drawn from that data alone, so it can be
//! made again from `report.json` (JSON has no NaN: a figure that is not finite does not survive the way there).
//!
//! Reading order: `data` (what is shown), `page` (the order it is shown in), then one module a group of
//! sections: `verdict`, `novelty`, `tables`, `method`, `filters`, `closing`, `conditional`, `few` and `best` and `break_even` where networks have tasks, and
//! `textures` where they are automata. Below them lie `rows` (the order and
//! looks of rows), `html` (escaping and figures in words), `plot` (scales, axes, series, labels) and `png` (an
//! uncompressed encoder). Text that comes from a user passes `html::escape`; a figure that is not finite becomes a
//! dash or is left out of its plot.

pub mod data;

mod best;
mod break_even;
mod closing;
mod conditional;
mod few;
mod filters;
mod html;
mod method;
mod novelty;
mod page;
mod plot;
pub(crate) mod png;
mod recipes;
mod rows;
mod structure;
mod tables;
mod textures;
mod verdict;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

pub use data::Report;
pub use page::page;
