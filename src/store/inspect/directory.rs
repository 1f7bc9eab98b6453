//! A file or a directory, and what may be done to it.

use std::path::Path;

use super::super::connect::ConnectError;
use super::super::url::{StoreUrl, UrlError};

/// What the file system says of a path.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own")]
pub(crate) struct PathFacts {
    pub(crate) exists: bool,
    pub(crate) is_directory: bool,
    /// By this process; one of root's may write what nobody else may.
    pub(crate) is_writable: bool,
    /// By users who are neither the owner nor in the group.
    pub(crate) others_read: bool,
    pub(crate) others_write: bool,
    /// What kind of file system of another machine it is on.
    pub(crate) network: Option<&'static str>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct DirectoryFacts {
    pub(crate) path: PathFacts,
    /// Whether it is the directory for what is temporary.
    pub(crate) is_temporary: bool,
}

impl PathFacts {
    pub(crate) fn of(path: &Path) -> Self {
        let Ok(metadata) = std::fs::metadata(path) else { return Self::default() };
        Self {
            exists: true,
            is_directory: metadata.is_dir(),
            is_writable: !metadata.permissions().readonly() && may_write(path),
            others_read: mode(&metadata) & 0o004 != 0,
            others_write: mode(&metadata) & 0o022 != 0,
            network: network(path),
        }
    }
}

pub(super) fn inspect(url: &StoreUrl) -> Result<DirectoryFacts, ConnectError> {
    let expected = "a path, such as `file:///srv/site/sessions`";
    let path = url.address().split_once(':').map(|(_, path)| path);
    let path = path.map(|path| path.strip_prefix("//").unwrap_or(path));
    let path = path.ok_or(UrlError::InvalidAddress { expected })?;
    let path = percent_encoding::percent_decode_str(path).decode_utf8();
    let path = path.map_err(|_| UrlError::InvalidAddress { expected })?;
    Ok(DirectoryFacts::of(Some(&*path).filter(|path| !path.is_empty())))
}

impl DirectoryFacts {
    /// Of `SESSION_FILE_PATH`, where none is the directory for what is temporary.
    pub(crate) fn of(path: Option<&str>) -> Self {
        let temporary = std::env::temp_dir();
        let path = path.map_or(&*temporary, Path::new);
        Self { path: PathFacts::of(path), is_temporary: path == temporary }
    }
}

#[cfg(unix)]
fn may_write(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(not(unix))]
fn may_write(_: &Path) -> bool {
    true
}

#[cfg(unix)]
fn mode(metadata: &std::fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;

    metadata.permissions().mode()
}

#[cfg(not(unix))]
fn mode(_: &std::fs::Metadata) -> u32 {
    0
}

#[cfg(target_os = "linux")]
fn network(path: &Path) -> Option<&'static str> {
    let found = rustix::fs::statfs(path).ok()?;
    // Some are negative where they are signed.
    network_of(u64::try_from(found.f_type & 0xffff_ffff).ok()?)
}

#[cfg(not(target_os = "linux"))]
fn network(_: &Path) -> Option<&'static str> {
    None
}

/// By the numbers of `statfs(2)`.
#[cfg(target_os = "linux")]
fn network_of(kind: u64) -> Option<&'static str> {
    match kind {
        0x6969 => Some("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        0x0102_1997 => Some("9P"),
        0x00c3_6400 => Some("Ceph"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        _ => None,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{PathFacts, network_of};

    #[test]
    fn file_systems_of_other_machines_are_known() {
        assert_eq!(network_of(0x6969), Some("NFS"));
        assert_eq!(network_of(0xff53_4d42), Some("SMB"));
        // ext4, tmpfs, overlayfs.
        for local in [0xef53, 0x0102_1994, 0x794c_7630] {
            assert_eq!(network_of(local), None);
        }
    }

    #[test]
    fn what_is_not_there_is_not_writable() {
        let found = PathFacts::of("/no/such/place".as_ref());
        assert!(!found.exists && !found.is_writable);
    }
}
