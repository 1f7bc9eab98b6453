//! Dependencies between the modules point one way.

use std::path::{Path, PathBuf};

/// Each module and what it may use of the crate.
const ALLOWED: [(&str, &[&str]); 7] = [
    ("codec", &["codec"]),
    ("session", &["codec", "session"]),
    ("auth", &["codec", "session", "auth"]),
    ("store", &["codec", "session", "auth", "store"]),
    ("web", &["session", "auth", "web"]),
    ("cli", &["codec", "session", "auth", "store", "cli"]),
    ("python", &["cli", "codec", "session", "store", "python"]),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let entries = entries.map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

#[test]
fn no_module_uses_one_to_its_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut arrows = 0;
    for (module, allowed) in ALLOWED {
        for path in sources(&root.join(module)) {
            let text = std::fs::read_to_string(&path).unwrap();
            // Examples in documentation use the crate from outside.
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for line in code {
                for (at, _) in line.match_indices("crate::") {
                    // `$crate` in macros and the paved paths at the root are seen from outside.
                    let target = &line[at + "crate::".len()..];
                    let target: String = target
                        .chars()
                        .take_while(|char| char.is_alphanumeric() || *char == '_')
                        .collect();
                    if target.starts_with(char::is_lowercase) {
                        arrows += 1;
                        assert!(
                            allowed.contains(&&*target),
                            "{} uses {target}: {line}",
                            path.display()
                        );
                    }
                }
            }
        }
    }
    assert!(arrows > 10, "the test sees the code");
}
