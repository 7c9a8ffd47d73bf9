//! A copy of the workspace, in which sources can be changed.

use crate::failed::{Failed, at, output};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program that runs seeds, within the copy.
pub const SEEDS: &str = "schemata_seeds";
const SEEDS_FILE: &str = "crates/sim/examples/schemata_seeds.rs";
/// The switch, within the copy.
const SWITCH_FILE: &str = "crates/core/src/schemata.rs";
/// Where the core declares its modules.
pub const TOP: &str = "crates/core/src/lib.rs";

/// The copy, and where it is built.
pub struct Tree {
    /// The workspace.
    pub root: PathBuf,
    /// Its copy.
    pub dir: PathBuf,
    build: PathBuf,
}

impl Tree {
    /// Makes `name` below `target` a copy of the workspace as it is now, with the program that runs seeds. The files
    /// `but` are left as they are.
    pub fn copy(root: &Path, target: &Path, name: &str, but: &[&str]) -> Result<Tree, Failed> {
        let tree = Tree {
            root: root.to_owned(),
            dir: target.join(name),
            build: target.join(format!("{name}-build")),
        };
        let mut git = Command::new("git");
        git.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
        let listed = output(git.current_dir(root))?;
        let files: BTreeSet<&str> = listed.lines().filter(|f| root.join(f).is_file()).collect();
        tree.forget_all_but(&tree.dir, &files)?;
        for file in files.into_iter().filter(|f| !but.contains(f)) {
            let bytes = std::fs::read(root.join(file)).map_err(at(&root.join(file)))?;
            tree.write(file, &bytes)?;
        }
        tree.write(SEEDS_FILE, include_bytes!("../tree/seeds.rs"))?;
        Ok(tree)
    }

    /// Puts the switch into the core.
    pub fn add_switch(&self) -> Result<(), Failed> {
        self.write(SWITCH_FILE, include_bytes!("../tree/schemata.rs"))
    }

    /// What a source of the core has in the copy besides its edits.
    pub fn appendix(file: &str) -> &'static str {
        if file == TOP { "\nmod schemata;\n" } else { "" }
    }

    /// A file of the workspace.
    pub fn original(&self, file: &str) -> Result<String, Failed> {
        let path = self.root.join(file);
        std::fs::read_to_string(&path).map_err(at(&path))
    }

    /// Writes a file of the copy, unless it is so already: what is not touched is not built again.
    pub fn write(&self, file: &str, bytes: &[u8]) -> Result<(), Failed> {
        let path = self.dir.join(file);
        if std::fs::read(&path).is_ok_and(|old| old == bytes) {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(&self.dir);
        std::fs::create_dir_all(parent).map_err(at(parent))?;
        std::fs::write(&path, bytes).map_err(at(&path))
    }

    /// Files that the workspace no longer has.
    fn forget_all_but(&self, dir: &Path, files: &BTreeSet<&str>) -> Result<(), Failed> {
        let Ok(entries) = std::fs::read_dir(dir) else {
            return Ok(());
        };
        for entry in entries {
            let path = entry.map_err(at(dir))?.path();
            let name = path
                .strip_prefix(&self.dir)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                self.forget_all_but(&path, files)?;
            } else if !files.contains(name.as_str()) && name != SEEDS_FILE && name != SWITCH_FILE {
                std::fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }

    /// A cargo that works on the copy. The profile of the simulator without what only makes the build slow.
    pub fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new("cargo");
        command
            .args(args)
            .current_dir(&self.dir)
            .env("CARGO_TARGET_DIR", &self.build);
        command.env("CARGO_PROFILE_SIM_LTO", "off");
        command.env("CARGO_PROFILE_SIM_CODEGEN_UNITS", "16");
        command.env("CARGO_PROFILE_SIM_DEBUG", "false");
        // Of the tool's own build.
        command.env_remove("CARGO_MANIFEST_DIR");
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_changed_is_not_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = Tree {
            root: dir.path().to_owned(),
            dir: dir.path().join("tree"),
            build: dir.path().join("build"),
        };
        tree.write("a/b.rs", b"x").expect("a file");
        let path = tree.dir.join("a/b.rs");
        let read_only = |on: bool| {
            let mut permissions = std::fs::metadata(&path).expect("a file").permissions();
            permissions.set_readonly(on);
            std::fs::set_permissions(&path, permissions).expect("permissions");
        };
        let written = std::fs::metadata(&path).and_then(|m| m.modified()).expect("a time");
        read_only(true);
        tree.write("a/b.rs", b"x").expect("nothing to write");
        assert_eq!(
            std::fs::metadata(&path).and_then(|m| m.modified()).expect("a time"),
            written
        );
        read_only(false);
        tree.forget_all_but(&tree.dir, &BTreeSet::from(["a/c.rs"]))
            .expect("a directory");
        assert!(!path.exists());
    }
}
