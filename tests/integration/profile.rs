//! The profile by which release builds are optimised: `tools/profile` gives it to the compiler that
//! it fits, and to no other.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const RELEASE: [&str; 3] = ["--crate-name=h2", "-C", "opt-level=3"];

/// A compiler of that release, which prints its arguments.
fn compiler(folder: &Path, release: &str) -> PathBuf {
    let program = folder.join(release);
    let version = format!("host: x86_64-unknown-linux-gnu\\nrelease: {release}\\n");
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = -vV ]; then printf '{version}'; else printf '%s\\n' \"$@\"; fi\n"
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// The arguments that a compiler of that release gets.
fn passed_on(release: &str, arguments: &[&str], counts: Option<&str>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let wrapper = root().join("tools/profile/rustc.sh");
    let mut command = Command::new(wrapper);
    command
        .arg(compiler(folder.path(), release))
        .args(arguments)
        .env_remove("PROFILE_COUNTS");
    command.envs(counts.map(|counts| ("PROFILE_COUNTS", counts)));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The release of the compiler that this repository builds with.
fn pinned() -> String {
    let text = fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
    let channel = text.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap();
    channel.trim_matches('"').to_owned()
}

#[test]
fn a_release_build_of_the_pinned_compiler_has_a_profile() {
    let profile = format!("tools/profile/x86_64-unknown-linux-gnu-{}.profdata", pinned());
    let profile = root().join(profile);
    assert!(profile.is_file(), "there is no {}", profile.display());
    let used = format!("-Cprofile-use={}", profile.display());
    let arguments = passed_on(&pinned(), &RELEASE, None);
    assert_eq!(arguments[..3], RELEASE);
    assert!(arguments[3..].contains(&used), "{arguments:?}");
}

#[test]
fn what_the_profile_does_not_fit_is_built_without_it() {
    let crossed = [&RELEASE[..], &["--target", "x86_64-unknown-linux-musl"]].concat();
    let joined = [&RELEASE[..], &["--target=x86_64-unknown-linux-musl"]].concat();
    let sanitized = [&RELEASE[..], &["-Zsanitizer=address"]].concat();
    let debug = ["--crate-name=h2", "-C", "debuginfo=2"];
    let cases = [
        ("1.0.0", &RELEASE[..]),
        (&pinned(), &debug),
        (&pinned(), &crossed),
        (&pinned(), &joined),
        (&pinned(), &sanitized),
    ];
    for (release, arguments) in cases {
        assert_eq!(passed_on(release, arguments, None), arguments);
    }
}

#[test]
fn a_program_that_counts_its_branches_uses_no_profile() {
    let arguments = passed_on(&pinned(), &RELEASE, Some("/a folder/counts"));
    assert_eq!(arguments[..3], RELEASE);
    assert_eq!(arguments[3..], ["-Cprofile-generate=/a folder/counts"]);
}

#[test]
fn the_images_are_built_with_the_profile() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (dockerfile, sent) = (read("Dockerfile"), read(".dockerignore"));
    // Debian's variants have glibc, and Alpine's has musl.
    let toolchain = format!("FROM docker.io/library/rust:{}-trixie AS toolchain", pinned());
    let chosen = format!("ENV RUSTUP_TOOLCHAIN={}", pinned());
    for line in [toolchain, chosen] {
        assert!(dockerfile.lines().any(|one| one == line), "the Dockerfile has no {line:?}");
    }
    for path in ["!.cargo", "!tools/profile"] {
        assert!(sent.lines().any(|one| one == path), ".dockerignore has no {path:?}");
    }
}
