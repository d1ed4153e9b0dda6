//! The arguments of `weft adapter …`.

pub(crate) mod space;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Adapter {
    #[command(flatten)]
    Space(space::Space),
    /// Train adapters over a frozen base, many at once, and measure them beside the base and one adapter of all tasks.
    Train {
        /// A run file, such as `configs/languages.toml`.
        run: std::path::PathBuf,
    },
}
