mod authority;
mod check;

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
    version,
};
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio_rustls::TlsConnector;

use super::*;
use authority::{Authority, Pair};

/// A server's files in a folder, and who signed what.
struct World {
    folder: TempDir,
    authority: Authority,
}

/// A client's side of a handshake.
struct Client<'a> {
    trusts: &'a Authority,
    shows: Option<Pair>,
    versions: &'static [&'static SupportedProtocolVersion],
    speaks: &'static [u8],
}

impl World {
    fn new() -> Self {
        let world = Self { folder: TempDir::new().unwrap(), authority: Authority::named("the CA") };
        world.authority.server(4000).write(world.folder.path());
        fs::write(world.folder.path().join("ca.crt"), &world.authority.pem).unwrap();
        world
    }

    fn files(&self) -> TlsFiles {
        let file = |name| self.folder.path().join(name);
        TlsFiles { cert: file("tls.crt"), key: file("tls.key"), client_ca: Some(file("ca.crt")) }
    }

    fn load(&self) -> Tls {
        Tls::load(self.files()).unwrap()
    }

    fn client(&self) -> Client<'_> {
        Client {
            trusts: &self.authority,
            shows: None,
            versions: rustls::ALL_VERSIONS,
            speaks: b"h2",
        }
    }

    fn showing(&self, pair: Pair) -> Client<'_> {
        Client { shows: Some(pair), ..self.client() }
    }
}

impl Client<'_> {
    fn config(self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.trusts.pem.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match self.shows {
            Some(Pair { cert, key }) => {
                let chain =
                    CertificateDer::pem_slice_iter(cert.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![self.speaks.to_vec()];
        config
    }
}

type Accepted = Result<TlsStream<DuplexStream>, HandshakeError>;

async fn shake(tls: &Tls, client: Client<'_>) -> (Accepted, io::Result<ClientConnection>) {
    shake_again(tls, &TlsConnector::from(Arc::new(client.config()))).await
}

async fn shake_again(
    tls: &Tls,
    connector: &TlsConnector,
) -> (Accepted, io::Result<ClientConnection>) {
    use tokio::io::AsyncReadExt;
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let connect = async {
        let mut stream =
            connector.connect(ServerName::try_from("localhost").unwrap(), theirs).await?;
        // With TLS 1.3 the server checks a client certificate, and sends its tickets, after the
        // handshake.
        let _ = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0; 1])).await;
        Ok(stream.into_inner().1)
    };
    tokio::join!(tls.accept(ours), connect)
}

async fn refusal(tls: &Tls, client: Client<'_>) -> (&'static str, bool) {
    let error = shake(tls, client).await.0.expect_err("the handshake was let through");
    (error.reason(), error.is_of_certificate())
}

#[tokio::test]
async fn both_versions_speak_http_2_and_nothing_else() {
    let (world, only) = (World::new(), "the client does not speak HTTP/2");
    let tls = world.load();
    for (versions, expected) in
        [(ONLY_12, ProtocolVersion::TLSv1_2), (ONLY_13, ProtocolVersion::TLSv1_3)]
    {
        let (accepted, connected) = shake(&tls, Client { versions, ..world.client() }).await;
        assert_eq!(accepted.unwrap().get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(connected.unwrap().protocol_version(), Some(expected));
        assert_eq!(
            refusal(&tls, Client { versions, speaks: b"http/1.1", ..world.client() }).await,
            (only, false)
        );
    }
}

#[tokio::test]
async fn a_client_certificate_is_optional_but_a_bad_one_fails() {
    let world = World::new();
    let tls = world.load();
    let (accepted, _) = shake(&tls, world.client()).await;
    assert!(client_certificate(&accepted.unwrap()).is_none());

    let pair = world.authority.client(&["spiffe://corp/bot"]);
    let (accepted, _) = shake(&tls, world.showing(pair.clone())).await;
    let expected = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
    assert_eq!(client_certificate(&accepted.unwrap()), Some(&expected));

    let names = &["spiffe://corp/bot"];
    for (pair, reason) in [
        (Authority::new().client(names), "the client certificate is of another CA"),
        (
            Authority::named("the CA").client(names),
            "the client certificate is not signed by the CA that it names",
        ),
        (world.authority.client_between(names, 2020, 2021), "the client certificate has expired"),
        (
            world.authority.client_between(names, 3000, 3001),
            "the client certificate is not valid yet",
        ),
        (world.authority.server(4000), "the certificate is not for clients"),
    ] {
        for versions in [ONLY_12, ONLY_13] {
            let client = Client { versions, ..world.showing(pair.clone()) };
            assert_eq!(refusal(&tls, client).await, (reason, true), "{versions:?}");
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_verified_on_every_connection() {
    let world = World::new();
    let tls = world.load();
    for versions in [ONLY_12, ONLY_13] {
        let client =
            Client { versions, ..world.showing(world.authority.client(&["spiffe://corp/bot"])) };
        let connector = TlsConnector::from(Arc::new(client.config()));
        for _ in 0..2 {
            let (_, connected) = shake_again(&tls, &connector).await;
            assert_eq!(
                connected.unwrap().handshake_kind(),
                Some(rustls::HandshakeKind::Full),
                "{versions:?}"
            );
        }
    }
}

#[tokio::test]
async fn without_a_client_ca_no_certificate_is_asked_for() {
    let world = World::new();
    let tls = Tls::load(TlsFiles { client_ca: None, ..world.files() }).unwrap();
    let (accepted, _) =
        shake(&tls, world.showing(Authority::new().client(&["spiffe://corp/bot"]))).await;
    assert!(client_certificate(&accepted.unwrap()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_ends_after_ten_seconds() {
    use tokio::io::AsyncWriteExt;
    let tls = World::new().load();
    for said in [&b""[..], &[22, 3, 1, 2, 0, 1]] {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(said).await.unwrap();
        let started = tokio::time::Instant::now();
        let error = tls.accept(ours).await.expect_err("it was let through");
        assert_eq!((error.reason(), started.elapsed().as_secs()), ("the handshake timed out", 10));
    }
}

#[tokio::test]
async fn what_is_not_tls_is_refused() {
    use tokio::io::AsyncWriteExt;
    let tls = World::new().load();
    let (ours, mut theirs) = tokio::io::duplex(1024);
    theirs.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    assert_eq!(tls.accept(ours).await.unwrap_err().reason(), "not TLS, or broken TLS");
    let (ours, theirs) = tokio::io::duplex(1024);
    drop(theirs);
    assert_eq!(tls.accept(ours).await.unwrap_err().reason(), "the connection was lost");
}

#[tokio::test]
async fn changed_files_are_used_for_new_connections() {
    let world = World::new();
    let tls = world.load();
    let mut seen = tls.seen();
    assert!(tls.look(&mut seen).is_none());
    let other = Authority::new();
    other.server(3000).write(world.folder.path());
    assert!(matches!(tls.look(&mut seen), Some(TlsReloaded::Applied)));
    assert!(shake(&tls, world.client()).await.1.is_err());
    assert!(shake(&tls, Client { trusts: &other, ..world.client() }).await.1.is_ok());
    // 3000-01-01, in seconds since 1970.
    assert_eq!(tls.not_after(), SystemTime::UNIX_EPOCH + Duration::from_secs(32_503_680_000));

    fs::write(world.folder.path().join("ca.crt"), &other.pem).unwrap();
    assert!(matches!(tls.look(&mut seen), Some(TlsReloaded::Applied)));
    let stale =
        Client { trusts: &other, ..world.showing(world.authority.client(&["spiffe://corp/bot"])) };
    assert_eq!(refusal(&tls, stale).await, ("the client certificate is of another CA", true));
}

#[tokio::test]
async fn a_broken_change_is_told_once_and_changes_nothing() {
    let world = World::new();
    let tls = world.load();
    let mut seen = tls.seen();
    let good = fs::read(world.files().cert).unwrap();
    fs::write(world.files().cert, "broken").unwrap();
    assert!(tls.look(&mut seen).is_none(), "told while the files may still be changing");
    match tls.look(&mut seen) {
        Some(TlsReloaded::Refused(problems)) => {
            assert_eq!(problems[0].path, "server.tls.cert_file")
        }
        other => panic!("{other:?}"),
    }
    assert!(tls.look(&mut seen).is_none());
    assert!(shake(&tls, world.client()).await.1.is_ok());

    fs::write(world.files().cert, good).unwrap();
    assert!(matches!(tls.look(&mut seen), Some(TlsReloaded::Applied)));
}

#[test]
fn a_certificate_that_comes_before_its_key_is_no_problem() {
    let world = World::new();
    let tls = world.load();
    let mut seen = tls.seen();
    let new = world.authority.server(3000);
    fs::write(world.files().cert, new.cert).unwrap();
    assert!(tls.look(&mut seen).is_none());
    fs::write(world.files().key, new.key).unwrap();
    assert!(matches!(tls.look(&mut seen), Some(TlsReloaded::Applied)));
}

#[test]
fn the_swap_of_a_secrets_link_is_noticed() {
    let world = World::new();
    let folder = world.folder.path();
    for (version, year) in [("..v1", 3000), ("..v2", 3001)] {
        fs::create_dir(folder.join(version)).unwrap();
        world.authority.server(year).write(&folder.join(version));
    }
    symlink("..v1", folder.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        fs::remove_file(folder.join(name)).unwrap();
        symlink(format!("..data/{name}"), folder.join(name)).unwrap();
    }
    let tls = world.load();
    let (mut seen, before) = (tls.seen(), tls.not_after());
    symlink("..v2", folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    assert!(matches!(tls.look(&mut seen), Some(TlsReloaded::Applied)));
    assert!(tls.not_after() > before);
}

const ONLY_12: &[&SupportedProtocolVersion] = &[&version::TLS12];
const ONLY_13: &[&SupportedProtocolVersion] = &[&version::TLS13];
