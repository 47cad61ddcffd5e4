//! The connection to the API server: TLS, the service account, and limits for a network that fails.

use std::{path::PathBuf, time::Duration};

use hyper::{
    Request,
    header::{AUTHORIZATION, HeaderValue},
};
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt},
};
use tower::{BoxError, ServiceBuilder};

use super::Error;

/// Where the API is, and by what it and the member prove who they are.
#[derive(Debug, Clone)]
pub struct Server {
    /// An address. (A name is looked up on a thread of its own, of which the manager has none to spare.)
    pub host: String,
    /// The port.
    pub port: u16,
    /// The CA's certificates, PEM. Read anew every minute.
    pub ca: PathBuf,
    /// The service account's token. Read anew for each request: it is a thousand bytes in memory, and a token that was
    /// exchanged is in use at once.
    pub token: PathBuf,
}

/// <https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/#directly-accessing-the-rest-api>
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

impl Server {
    /// What the kubelet tells each container.
    ///
    /// # Errors
    /// This is no container of a pod, or one without a service account.
    pub fn of_pod(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let get = |name| {
            variable(name).filter(|v| !v.is_empty()).ok_or_else(|| {
                Error::Other(format!(
                    "cannot find the Kubernetes API: {name} is not set, so this is no container of a pod"
                ))
            })
        };
        let port = get("KUBERNETES_SERVICE_PORT")?;
        Ok(Self {
            host: get("KUBERNETES_SERVICE_HOST")?,
            port: port.parse().map_err(|_| {
                Error::Other(format!("cannot find the Kubernetes API: KUBERNETES_SERVICE_PORT is {port:?}, no port"))
            })?,
            ca: format!("{ACCOUNT}/ca.crt").into(),
            token: format!("{ACCOUNT}/token").into(),
        })
    }

    pub(super) fn url(&self) -> String {
        match self.host.contains(':') {
            true => format!("https://[{}]:{}", self.host, self.port),
            false => format!("https://{}:{}", self.host, self.port),
        }
    }
}

/// A connection that cannot be made in this time will not be.
const CONNECT: Duration = Duration::from_secs(3);
/// A peer that acknowledges nothing for this long is gone. An API server that acknowledges and does not answer is found
/// by the requests' deadlines and by the silence of the Lease.
const UNACKNOWLEDGED: Duration = Duration::from_secs(6);
const KEEPALIVE: Duration = Duration::from_secs(3);
/// A connection that waits for longer than this may be dead without knowing: load balancers forget.
const IDLE: Duration = Duration::from_secs(30);

/// A client that sends nothing twice by itself (but a request that has not left, because the connection that waited for it
/// was closed, goes by another one), and has no limits of its own for requests: whoever asks sets them. kube's
/// own stack connects for 30 s, waits for answers without end, tries again for minutes, and knows no keepalive.
///
/// TLS is ring's, which rustls finds by itself as long as it is the only one in the tree.
///
/// `idle`: how many connections are kept for the next request. Of several that wait all could be dead, and each would
/// cost a request its deadline.
pub(super) fn connect(server: &Server, namespace: &str, idle: usize) -> Result<Client, Error> {
    let failed = |why: String| Error::Other(format!("cannot use the Kubernetes API at {}: {why}", server.url()));
    let mut config = Config::new(server.url().parse().map_err(|e| failed(format!("{e}")))?);
    // The file's are the only roots, so none of the system's are looked for.
    config.root_cert = Some(Vec::new());
    config.root_cert_file = Some(server.ca.clone());
    authorization(&server.token).map_err(|e| failed(format!("{e}")))?;

    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let tls = config
        .rustls_https_connector_with_connector(tcp)
        .map_err(|e| failed(format!("its CA's certificates in {} cannot be used: {e}", server.ca.display())))?;
    let http = Http::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(idle)
        .build(tls);

    let token = server.token.clone();
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .filter(move |mut request: Request<Body>| -> Result<_, BoxError> {
            request.headers_mut().insert(AUTHORIZATION, authorization(&token)?);
            Ok(request)
        })
        .service(http);
    Ok(Client::new(service, namespace))
}

fn authorization(path: &PathBuf) -> Result<HeaderValue, Error> {
    let failed =
        |why: String| Error::Other(format!("cannot use the service account's token {}: {why}", path.display()));
    let token = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(|e| failed(e.to_string()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_where_the_kubelet_says() {
        let of = |host: &'static str, port: &'static str| {
            Server::of_pod(move |v| match v {
                "KUBERNETES_SERVICE_HOST" => Some(host.into()),
                "KUBERNETES_SERVICE_PORT" => Some(port.into()),
                _ => None,
            })
        };
        assert_eq!(of("10.96.0.1", "443").unwrap().url(), "https://10.96.0.1:443");
        assert_eq!(of("fd00::1", "6443").unwrap().url(), "https://[fd00::1]:6443");
        assert!(of("", "443").unwrap_err().to_string().contains("KUBERNETES_SERVICE_HOST is not set"));
        assert!(of("10.96.0.1", "https").unwrap_err().to_string().contains("no port"));
    }

    #[test]
    fn a_token_that_ends_in_a_newline_is_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc.def\n").unwrap();
        let value = authorization(&file.path().into()).unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer abc.def");
        assert!(value.is_sensitive());
        assert!(authorization(&"/does/not/exist".into()).unwrap_err().to_string().contains("/does/not/exist"));
    }
}
