//! Compiles kernels for the GPU that is there, and keeps the result on disk.
//!
//! A cached file is a digest of the code and the code; its name is a digest of all that it depends on. What cannot be read, or is not
//! what was written, is compiled again; what cannot be written is compiled the next time.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaModule};
use candle_core::cuda_backend::cudarc::nvrtc::{Ptx, result, sys};
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A module's source, with the values of its `WEFT_` constants.
pub(super) struct Source<'a> {
    pub(super) files: &'a [&'a str],
    pub(super) constants: &'a [(&'a str, usize)],
}

impl Source<'_> {
    /// Loads the module from the cache, or compiles it.
    pub(super) fn load(&self, context: &Arc<CudaContext>) -> crate::Result<Arc<CudaModule>> {
        let (major, minor) = context.compute_capability().w()?;
        let text = self.files.concat();
        let mut options = vec![format!("--gpu-architecture=sm_{major}{minor}")];
        options.extend(self.constants.iter().map(|(name, value)| format!("-D{name}={value}")));
        let path = folder().map(|folder| folder.join(name(&text, &options)));
        if let Some(code) = path.as_deref().and_then(read)
            && let Ok(module) = context.load_module(Ptx::from_binary(code))
        {
            return Ok(module);
        }
        let code = compile(&text, &options)?;
        if let Some(path) = path {
            // Without a cache, the next start compiles again.
            let _ = write(&path, &code);
        }
        Ok(context.load_module(Ptx::from_binary(code)).w()?)
    }
}

/// The cache: `$WEFT_CACHE`, else the user's cache folder.
fn folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("WEFT_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("weft")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache").join("weft")))
}

fn name(text: &str, options: &[String]) -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both pointers are to integers of this frame.
    let known = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result().is_ok();
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{known} {major}.{minor} {options:?}\n").as_bytes()).update(text.as_bytes());
    format!("{}.cubin", hasher.finalize().to_hex())
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut file = std::fs::read(path).ok()?;
    if file.len() <= blake3::OUT_LEN {
        return None;
    }
    let code = file.split_off(blake3::OUT_LEN);
    (blake3::hash(&code).as_bytes().as_slice() == file).then_some(code)
}

/// Writes beside and renames, so that no other process reads half a file.
fn write(path: &Path, code: &[u8]) -> std::io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension(format!("{}-{}.tmp", std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed)));
    let file = [blake3::hash(code).as_bytes().as_slice(), code].concat();
    std::fs::write(&beside, file).and_then(|()| std::fs::rename(&beside, path)).inspect_err(|_| {
        let _ = std::fs::remove_file(&beside);
    })
}

/// A program of the compiler's, given back when dropped.
struct Program {
    handle: sys::nvrtcProgram,
    _text: CString,
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the handle was made by `create_program` and is given back once. An error would leave nothing to be done.
        let _ = unsafe { result::destroy_program(self.handle) };
    }
}

fn compile(text: &str, options: &[String]) -> crate::Result<Vec<u8>> {
    let message = |what: &str, reason: String| candle_core::Error::Msg(format!("{what}: {reason}"));
    let text = CString::new(text).map_err(|e| message("kernels", e.to_string()))?;
    let handle =
        result::create_program(&text, Some(c"weft.cu")).map_err(|e| message("cannot start the CUDA compiler", e.to_string()))?;
    let program = Program { handle, _text: text };
    // SAFETY: the handle lives as long as `program`, as does the text that it may refer to.
    unsafe { result::compile_program(program.handle, options) }
        .map_err(|e| message("cannot compile kernels", format!("{e:?}: {}", log(&program))))?;
    let mut len = 0;
    // SAFETY: as above; the length is written to this frame.
    unsafe { sys::nvrtcGetCUBINSize(program.handle, &raw mut len) }.result().map_err(|e| message("no code", e.to_string()))?;
    let mut code = vec![0u8; len];
    // SAFETY: as above; `code` has the length that was asked for.
    unsafe { sys::nvrtcGetCUBIN(program.handle, code.as_mut_ptr().cast()) }
        .result()
        .map_err(|e| message("no code", e.to_string()))?;
    Ok(code)
}

fn log(program: &Program) -> String {
    // SAFETY: the handle lives as long as `program`.
    let Ok(text) = (unsafe { result::get_program_log(program.handle) }) else { return String::new() };
    let bytes: Vec<u8> = text.iter().map(|&c| c.cast_unsigned()).collect();
    CStr::from_bytes_until_nul(&bytes).map(|text| text.to_string_lossy().trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_file_is_read_back_and_a_damaged_one_is_not() {
        let folder = std::env::temp_dir().join(format!("weft-cubin-{}", std::process::id()));
        let path = folder.join("x.cubin");
        assert_eq!(read(&path), None);
        write(&path, b"code").unwrap();
        assert_eq!(read(&path).as_deref(), Some(b"code".as_slice()));
        let mut file = std::fs::read(&path).unwrap();
        *file.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &file).unwrap();
        assert_eq!(read(&path), None);
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(read(&path), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn names_depend_on_source_and_options() {
        let names = [name("a", &[]), name("b", &[]), name("a", &["-D".into()])];
        assert!(names[0] != names[1] && names[0] != names[2] && names[1] != names[2]);
        assert_eq!(names[0], name("a", &[]));
    }
}
