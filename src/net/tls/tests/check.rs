//! What `check` says of the files.

use super::*;

#[test]
fn check_names_every_problem_by_its_key() {
    let world = World::new();
    assert_eq!(world.files().check(), []);
    let problems = |change: &dyn Fn(&TlsFiles)| {
        let world = World::new();
        change(&world.files());
        let problems = world.files().check();
        problems
            .iter()
            .map(|problem| format!("{}: {}", problem.path, problem.expected))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let missing = problems(&|files| {
        fs::remove_file(&files.cert).unwrap();
        fs::remove_file(files.client_ca.as_ref().unwrap()).unwrap();
    });
    assert!(missing.contains("server.tls.cert_file: a readable file: No such file"), "{missing}");
    assert!(
        missing.contains("server.tls.client_ca_file: a readable file: No such file"),
        "{missing}"
    );

    let text = problems(&|files| {
        for file in [&files.cert, &files.key, files.client_ca.as_ref().unwrap()] {
            fs::write(file, "not PEM").unwrap();
        }
    });
    for expected in [
        "server.tls.cert_file: a file with certificates, PEM",
        "server.tls.key_file: a file with a private key, PEM",
        "server.tls.client_ca_file: a file with certificates, PEM",
    ] {
        assert!(text.contains(expected), "{text}");
    }

    let swapped = problems(&|files| {
        let key = fs::read(&files.key).unwrap();
        fs::write(&files.key, fs::read(&files.cert).unwrap()).unwrap();
        fs::write(&files.cert, key).unwrap();
    });
    assert!(swapped.contains("cert_file") && swapped.contains("key_file"), "{swapped}");
    assert!(
        !swapped.contains("BEGIN") && !swapped.contains("MIG"),
        "a key's text was shown: {swapped}"
    );

    let foreign =
        problems(&|files| fs::write(&files.key, Authority::new().server(4000).key).unwrap());
    assert_eq!(foreign, "server.tls.key_file: the key of server.tls.cert_file: it is another's");
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let broken = problems(&|files| fs::write(&files.cert, garbage).unwrap());
    assert!(broken.starts_with("server.tls.cert_file: a file with certificates, PEM"), "{broken}");
}
