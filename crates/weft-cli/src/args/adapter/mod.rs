//! The arguments of `weft adapter …`.

pub(crate) mod space;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Adapter {
    #[command(flatten)]
    Space(space::Space),
}
