//! Connections over TLS, or without it where the other side has none.

use std::{io, net::SocketAddr};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::{Certificates, wire};

/// A connection to another member.
pub enum Dialled {
    /// Over TLS.
    Tls(Box<client::TlsStream<TcpStream>>),
    /// Without.
    Plain(TcpStream),
}

/// Takes up a connection over TLS.
///
/// # Errors
/// What the other side said is no TLS, or it has ended.
pub async fn accept(certificates: &Certificates, stream: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
    let config = certificates.borrow().server.clone();
    TlsAcceptor::from(config).accept(stream).await
}

/// Whether whoever has connected begins with TLS. Waits for its first byte.
///
/// # Errors
/// It ended.
pub async fn is_hello(stream: &TcpStream) -> io::Result<bool> {
    /// The content type of a handshake (RFC 8446, section 5.1), with which no request of HTTP begins.
    const HANDSHAKE: u8 = 22;
    let mut first = [0];
    let read = stream.peek(&mut first).await?;
    Ok(read > 0 && first[0] == HANDSHAKE)
}

/// Connects to the member at `address`: over TLS if there are certificates, and without if it speaks no TLS and may do without
/// (`tls-only`): it has not been given its certificate yet.
///
/// # Errors
/// It cannot be reached, or has the wrong certificate.
pub async fn dial(certificates: Option<&Certificates>, address: SocketAddr) -> io::Result<Dialled> {
    let Some(certificates) = certificates else { return plain(address).await };
    let (config, only) = {
        let current = certificates.borrow();
        (current.client.clone(), current.only)
    };
    let name = ServerName::IpAddress(address.ip().into());
    match TlsConnector::from(config).connect(name, TcpStream::connect(address).await?).await {
        Ok(stream) => Ok(Dialled::Tls(Box::new(stream))),
        Err(error) if !only && wire::speaks_no_tls(&error) => plain(address).await,
        Err(error) => Err(error),
    }
}

async fn plain(address: SocketAddr) -> io::Result<Dialled> {
    Ok(Dialled::Plain(TcpStream::connect(address).await?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::{
        super::{Keeper, made},
        *,
    };
    use crate::settings::tls::Tls;

    fn keeper(ca: &made::Ca, only: bool) -> Keeper {
        let (dir, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        ca.issue(dir.path(), 2040);
        of(dir.path(), run.path(), only)
    }

    fn of(dir: &Path, run: &Path, only: bool) -> Keeper {
        Keeper::begin(&Tls { dir: dir.into(), client_ca: None, only }, run).unwrap()
    }

    /// A member that has this certificate, or none, and answers each connection with a word.
    async fn member(certificates: Option<Certificates>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                match &certificates {
                    Some(certificates) if is_hello(&stream).await.unwrap() => {
                        if let Ok(mut stream) = accept(certificates, stream).await {
                            stream.write_all(b"tls").await.unwrap();
                            stream.shutdown().await.unwrap();
                        }
                    }
                    _ => {
                        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                    }
                }
            }
        });
        address
    }

    async fn call(certificates: Option<&Certificates>, address: SocketAddr) -> io::Result<String> {
        let mut text = String::new();
        match dial(certificates, address).await? {
            Dialled::Tls(mut stream) => stream.read_to_string(&mut text).await?,
            Dialled::Plain(mut stream) => stream.read_to_string(&mut text).await?,
        };
        Ok(text)
    }

    #[tokio::test]
    async fn members_of_one_ca_understand_each_other_and_strangers_do_not() {
        let ca = made::Ca::new("one");
        let (here, there) = (keeper(&ca, false), keeper(&ca, false));
        let address = member(Some(there.certificates())).await;
        assert_eq!(call(Some(&here.certificates()), address).await.unwrap(), "tls");
        let stranger = keeper(&made::Ca::new("one"), false);
        let error = call(Some(&stranger.certificates()), address).await.unwrap_err();
        assert!(wire::is_of_a_stranger(&error), "{error}");
    }

    #[tokio::test]
    async fn a_member_without_a_certificate_is_called_without_tls_unless_that_is_forbidden() {
        let ca = made::Ca::new("one");
        let address = member(None).await;
        assert!(call(Some(&keeper(&ca, false).certificates()), address).await.unwrap().starts_with("HTTP"));
        assert!(call(Some(&keeper(&ca, true).certificates()), address).await.is_err());
        assert!(call(None, address).await.unwrap().starts_with("HTTP"));
    }

    #[tokio::test]
    async fn a_certificate_that_was_exchanged_is_shown_to_the_next_caller() {
        let (one, two) = (made::Ca::new("one"), made::Ca::new("two"));
        let (dir, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        one.issue(dir.path(), 2040);
        let mut there = of(dir.path(), run.path(), true);
        let address = member(Some(there.certificates())).await;
        let (of_one, of_two) = (keeper(&one, true), keeper(&two, true));
        call(Some(&of_one.certificates()), address).await.unwrap();
        two.issue(dir.path(), 2040);
        assert!(there.read_again());
        call(Some(&of_two.certificates()), address).await.unwrap();
        assert!(call(Some(&of_one.certificates()), address).await.is_err());
    }
}
