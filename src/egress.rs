//! The egress: the proxies and certificates for requests to AWS and for key sets.
//!
//! Both come from the environment's usual variables. The variables are read once, at start, and so
//! is the file of `AWS_CA_BUNDLE`.

mod client;
mod no_proxy;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

pub(crate) use client::{HttpClient, http_client};

/// How requests leave: direct, or through a proxy; and which certificates they trust besides the
/// system's roots.
#[derive(Default)]
pub struct Egress {
    proxies: Option<Matcher>,
    /// The whole URL of each proxy, by the scheme of the requests that it serves.
    urls: BTreeMap<&'static str, String>,
    named: Vec<Named>,
    bundle: Option<Bundle>,
}

/// A proxy, as the log shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The variable that names it.
    pub variable: &'static str,
    /// `http(s)://host:port`, without user and password.
    pub proxy: String,
}

/// A variable that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// The variable.
    pub variable: &'static str,
    /// The form that was expected.
    pub expected: String,
}

/// The proxy of one request.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// `http(s)://host:port`.
    pub uri: Uri,
    /// For `proxy-authorization`; marked as sensitive.
    pub authorization: Option<HeaderValue>,
}

#[derive(Debug, Clone)]
struct Bundle {
    pem: Vec<u8>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Egress {
    /// The egress by the values of `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY` and `AWS_CA_BUNDLE`. A
    /// lower-case name has priority, as in curl. An empty value counts as absent.
    ///
    /// # Errors
    /// Every variable that cannot be honoured.
    pub fn new(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<Unusable>> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let either = |upper: &'static str, lower: &'static str| {
            set(lower).map(|value| (lower, value)).or_else(|| Some((upper, set(upper)?)))
        };
        let (mut named, mut unusable) = (Vec::new(), Vec::new());
        let mut urls = BTreeMap::new();
        for (scheme, upper, lower) in
            [("https", "HTTPS_PROXY", "https_proxy"), ("http", "HTTP_PROXY", "http_proxy")]
        {
            let Some((variable, value)) = either(upper, lower) else { continue };
            match proxy(value.trim()) {
                Some((url, proxy)) => {
                    named.push(Named { variable, proxy });
                    urls.insert(scheme, url);
                }
                None => unusable.push(Unusable { variable, expected: A_PROXY.into() }),
            }
        }
        let url = |scheme| urls.get(scheme).cloned().unwrap_or_default();
        let mut matcher = Matcher::builder().https(url("https")).http(url("http"));
        if let Some((_, value)) = either("NO_PROXY", "no_proxy") {
            matcher = matcher.no(no_proxy::as_curl_reads(&value));
        }
        let bundle = match set(CA_BUNDLE).map(|file| Bundle::read(Path::new(&file))).transpose() {
            Ok(bundle) => bundle,
            Err(expected) => {
                unusable.push(Unusable { variable: CA_BUNDLE, expected });
                None
            }
        };
        if unusable.is_empty() {
            let proxies = (!named.is_empty()).then(|| matcher.build());
            Ok(Self { proxies, urls, named, bundle })
        } else {
            Err(unusable)
        }
    }

    /// Every proxy that is used.
    #[must_use]
    pub fn proxies(&self) -> &[Named] {
        &self.named
    }

    /// The proxy for this URI; `None` if the connection is direct.
    #[must_use]
    pub fn proxy_for(&self, uri: &Uri) -> Option<Proxy> {
        let proxy = self.proxies.as_ref()?.intercept(uri)?;
        Some(Proxy { uri: proxy.uri().clone(), authorization: proxy.basic_auth().cloned() })
    }

    /// The whole URL of the proxy for a scheme, which may hold a password.
    #[must_use]
    pub(crate) fn proxy_url(&self, scheme: &str) -> Option<&str> {
        self.urls.get(scheme).map(String::as_str)
    }

    /// The certificates of `AWS_CA_BUNDLE`, PEM.
    #[must_use]
    pub(crate) fn ca_bundle(&self) -> Option<&[u8]> {
        self.bundle.as_ref().map(|bundle| bundle.pem.as_slice())
    }

    /// The system's roots and those of `AWS_CA_BUNDLE`. A root that cannot be loaded is not an
    /// error here: without any root, `http://` still works.
    #[must_use]
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(bundle) = &self.bundle {
            roots.add_parsable_certificates(bundle.certificates.iter().cloned());
        }
        roots
    }
}

impl Bundle {
    fn read(file: &Path) -> Result<Self, String> {
        let pem = std::fs::read(file).map_err(|error| format!("a readable file: {error}"))?;
        let certificates = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("a file of certificates, PEM: {error}"))?;
        if certificates.is_empty() {
            return Err("a file with at least one certificate, PEM".into());
        }
        Ok(Self { pem, certificates })
    }
}

/// Leaves out the URLs that may hold a password.
impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proxies: _, urls: _, named, bundle } = self;
        f.debug_struct("Egress")
            .field("proxies", named)
            .field("has_ca_bundle", &bundle.is_some())
            .finish_non_exhaustive()
    }
}

/// The whole URL with its scheme, and the same without user and password. The check is here because
/// the matcher ignores in silence any text that it cannot read.
fn proxy(value: &str) -> Option<(String, String)> {
    let url = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let url = with_user_escaped(url);
    let matcher = Matcher::builder().all(&url).build();
    let proxy = matcher.intercept(&Uri::from_static("https://example.com"))?;
    let uri = proxy.uri();
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let is_place = uri.host().is_some_and(|host| !host.is_empty());
    let shown = format!("{}://{}", uri.scheme_str()?, uri.authority()?);
    (is_http && is_place).then_some((url, shown))
}

/// The last `@` ends user and password, as in curl; the matcher would end them at the first, and
/// take the rest for the host's name.
fn with_user_escaped(url: String) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, host)) => format!("{scheme}://{}@{host}{path}", user.replace('@', "%40")),
        None => url,
    }
}

const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

const A_PROXY: &str = "http://host:port or https://host:port, perhaps with user:password@";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_with_an_at_sign_is_used_whole_and_not_shown() {
        let value = "http://user:p@ss@proxy:3128/";
        let egress = Egress::new(|name| (name == "HTTPS_PROXY").then(|| value.to_owned())).unwrap();
        assert_eq!(egress.proxies()[0].proxy, "http://proxy:3128");
        let proxy = egress.proxy_for(&Uri::from_static("https://example.com")).unwrap();
        assert_eq!(proxy.uri.authority().unwrap(), "proxy:3128");
        // user:p@ss
        assert_eq!(proxy.authorization.unwrap(), "Basic dXNlcjpwQHNz");
    }
}
