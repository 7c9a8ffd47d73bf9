//! The files of a crate, as its `mod` declarations name them.

use crate::cfg;
use crate::failed::{Failed, at};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use syn::Item;

/// The files that a build without features has, from the one at the top on.
pub fn compiled(top: &Path) -> Result<BTreeSet<PathBuf>, Failed> {
    let mut files = BTreeSet::new();
    let mut open = vec![top.to_owned()];
    while let Some(path) = open.pop() {
        let text = std::fs::read_to_string(&path).map_err(at(&path))?;
        let file = syn::parse_file(&text).map_err(|e| Failed(format!("{}: {e}", path.display())))?;
        let dir = directory(&path, path == top);
        let modules = file.items.iter().filter_map(|item| match item {
            Item::Mod(m) if m.content.is_none() && cfg::is_compiled(&m.attrs) => Some(m.ident.to_string()),
            _ => None,
        });
        for module in modules {
            let beside = dir.join(format!("{module}.rs"));
            let within = dir.join(&module).join("mod.rs");
            open.push(if beside.is_file() { beside } else { within });
        }
        files.insert(path);
    }
    Ok(files)
}

/// Where the modules of a file are.
fn directory(path: &Path, is_top: bool) -> PathBuf {
    if is_top || path.ends_with("mod.rs") {
        path.with_file_name("")
    } else {
        path.with_extension("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_where_rust_looks_for_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        };
        write(
            "lib.rs",
            "mod a;\nmod b;\n#[cfg(feature = \"x\")]\nmod c;\nmod inner {}",
        );
        write("a.rs", "mod d;");
        write("a/d.rs", "");
        write("b/mod.rs", "mod e;");
        write("b/e.rs", "");
        let found = compiled(&dir.path().join("lib.rs")).expect("the modules");
        let expected = ["a/d.rs", "a.rs", "b/e.rs", "b/mod.rs", "lib.rs"].map(|p| dir.path().join(p));
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }
}
