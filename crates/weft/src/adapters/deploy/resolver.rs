//! The folder that vLLM's resolver looks into: `DIR/NAME/adapter_config.json`, loaded when a request names `NAME`.
//!
//! # References
//! vLLM 0.32, `vllm/plugins/lora_resolvers/filesystem_resolver.py`: `VLLM_LORA_RESOLVER_CACHE_DIR`, and the adapter's
//! `base_model_name_or_path` must be what the server was started with as `--model`, whatever name it serves that by.

use super::DeployView;
use crate::{Error, Result};
use std::path::Path;

/// What of an adapter's folder a server reads.
const FILES: [&str; 5] = ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "weft.json", "README.md"];

/// What a server that runs makes of another adapter under the same name and path.
const KEEPS: &str = "a server that has the adapter of this name loaded keeps the old one until it unloads it, and what it has computed of prompts \
                     with it until it starts anew";

/// Copies an adapter below a folder, whole or not at all.
pub(super) fn place(folder: &Path, target: &Path, name: &str, replace: bool) -> Result<DeployView> {
    if !target.is_dir() {
        let reason = "it is no folder; a server is named by `vllm=URL` or `sglang=URL`".to_owned();
        return Err(Error::Address { url: target.display().to_string(), reason });
    }
    let (out, staged) = (target.join(name), target.join(format!(".{name}.{}.weft-tmp", std::process::id())));
    let fail = |reason: &str, left: &str| Error::Deploy {
        target: target.display().to_string(),
        name: name.to_owned(),
        reason: reason.to_owned(),
        left: left.to_owned(),
    };
    let there = out.symlink_metadata().is_ok();
    if there && folder.canonicalize().is_ok_and(|own| out.canonicalize().is_ok_and(|out| out == own)) {
        return Err(fail("the adapter is the folder that it would take the place of; it is there already", "nothing"));
    }
    if there && !replace {
        return Err(fail("there is something of this name already; `--replace` takes its place", "nothing"));
    }
    if there && !out.join(FILES[0]).is_file() {
        return Err(fail("what is there under this name is no adapter", "nothing"));
    }
    let copied = copy(folder, &staged).and_then(|()| if there { swap(&staged, &out) } else { rename(&staged, &out) });
    if let Err(error) = copied {
        // What led here says more than a failure to clean up would.
        let _ = std::fs::remove_dir_all(&staged);
        return Err(error);
    }
    let mut notes = vec![format!(
        "vLLM loads it when a request names `{name}`: `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`, `VLLM_PLUGINS=lora_filesystem_resolver`, \
         `VLLM_LORA_RESOLVER_CACHE_DIR={}`, and the server's `--model` must be the adapter's base, letter by letter",
        target.display()
    )];
    if there {
        notes.push(KEEPS.to_owned());
    }
    Ok(DeployView { name: name.to_owned(), target: out.display().to_string(), calls: Vec::new(), notes })
}

fn copy(folder: &Path, staged: &Path) -> Result<()> {
    if staged.exists() {
        std::fs::remove_dir_all(staged).map_err(Error::io("remove", staged))?;
    }
    std::fs::create_dir(staged).map_err(Error::io("create", staged))?;
    for file in FILES {
        let from = folder.join(file);
        if from.is_file() {
            let to = staged.join(file);
            std::fs::copy(&from, &to).map_err(Error::io("write", &to))?;
            std::fs::File::open(&to).and_then(|file| file.sync_all()).map_err(Error::io("sync", &to))?;
        }
    }
    Ok(())
}

fn rename(staged: &Path, out: &Path) -> Result<()> {
    std::fs::rename(staged, out).map_err(Error::io("write", out))?;
    let folder = out.parent().unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", folder))
}

/// Puts a folder in another's place; the other is back if that fails.
fn swap(staged: &Path, out: &Path) -> Result<()> {
    let old = staged.with_extension("old.weft-tmp");
    std::fs::rename(out, &old).map_err(Error::io("move", out))?;
    if let Err(error) = rename(staged, out) {
        let _ = std::fs::rename(&old, out);
        return Err(error);
    }
    std::fs::remove_dir_all(&old).map_err(Error::io("remove", &old))
}
