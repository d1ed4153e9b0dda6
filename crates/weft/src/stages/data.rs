//! The data set and the architecture that a run file names.

use crate::config::{ArchitectureConfig, DataConfig, TasksConfig};
use crate::{Error, Result};
use std::path::Path;
use weft_core::{Architecture, Dataset};

/// Reads the data set.
pub(crate) fn load(config: &DataConfig) -> Result<Dataset> {
    let path = config.path().unwrap_or_default();
    Ok(match config {
        DataConfig::Digits(_) => weft_zoo::data::digits()?,
        DataConfig::Idx(idx) => weft_zoo::data::idx_folder(&path, &idx.name, idx.validation)?,
        DataConfig::Npz(_) => weft_zoo::data::npz(&path, &stem(&path))?,
    })
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "npz".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// The architecture to train: a perceptron between the data's features and classes, or the two outputs of a task, or a file's.
pub(super) fn architecture(
    config: &ArchitectureConfig,
    dataset: Option<&Dataset>,
    tasks: Option<&TasksConfig>,
) -> Result<Architecture> {
    match config {
        ArchitectureConfig::Mlp(mlp) => {
            let dataset = dataset.ok_or(Error::RunWithoutData { stage: "architecture.mlp" })?;
            let mut widths = vec![dataset.num_features()];
            widths.extend(&mlp.hidden);
            widths.push(tasks.map_or(dataset.num_classes(), |TasksConfig::Subsets(_)| 2));
            let name = widths.iter().map(ToString::to_string).collect::<Vec<_>>().join("-");
            Ok(Architecture::mlp(&format!("mlp-{name}-{}", mlp.activation.name()), &widths, mlp.activation)?)
        }
        ArchitectureConfig::File(file) => Ok(weft_zoo::find_architecture(&file.path)?),
    }
}
