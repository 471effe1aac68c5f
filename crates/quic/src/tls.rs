//! TLS 1.3 with nothing but device keys: raw public keys (RFC 7250) in place of certificates.
//!
//! Each end shows its Ed25519 public key as a SubjectPublicKeyInfo (RFC 8410), which has exactly one encoding, and signs the
//! handshake with it. Who dials knows the ID, and the key must make it: all 14 bytes of it. Who is dialled learns the ID from the
//! key, and says whether it may come in. There are no names, no authorities, no expiry, no tickets, no 0-RTT: nothing could be
//! replayed.
//!
//! The key that signs here signs for the bowline protocol, too. Neither can be taken for the other: what TLS 1.3 signs begins with 64
//! spaces, what bowline signs with `bowline/1 `.

use std::sync::{Arc, OnceLock};

use bowline::{Allow, DeviceId, PublicKey, SecretKey};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key},
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::sync::mpsc;

/// What a SubjectPublicKeyInfo of an Ed25519 key begins with (RFC 8410, section 4); the 32 bytes of the key follow.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What a PKCS #8 key begins with (RFC 8410, section 7); the 32 bytes of the seed follow.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// This device's key, as TLS wants it.
pub(crate) fn certified(key: &SecretKey) -> Result<Arc<CertifiedKey>, Error> {
    let pkcs8 = PrivatePkcs8KeyDer::from([&PKCS8_PREFIX[..], &key.seed()].concat());
    let signer = ring::sign::any_eddsa_type(&pkcs8)?;
    drop(PrivateKeyDer::from(pkcs8));
    let spki = [&SPKI_PREFIX[..], &key.public().0].concat();
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer)))
}

/// The device whose key this is.
pub(crate) fn device_of(shown: &CertificateDer<'_>) -> Option<DeviceId> {
    let key: [u8; 32] = shown.as_ref().strip_prefix(&SPKI_PREFIX)?.try_into().ok()?;
    let key = PublicKey(key);
    // A key that is written in two ways would be two devices, and one of small order everybody's.
    key.is_sound().then(|| key.device_id())
}

/// For a connection to that device. What key was shown instead, if another was, is left in `stranger`.
pub(crate) fn client(
    own: Arc<CertifiedKey>,
    device: DeviceId,
    service: &[u8],
    stranger: Arc<OnceLock<DeviceId>>,
) -> Result<QuicClientConfig, Error> {
    let verifier = Arc::new(DialledKey { device, stranger, signatures: Signatures::new() });
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&verifier.signatures.0))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(own)));
    config.alpn_protocols = vec![service.to_vec()];
    config.enable_sni = false;
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    config.try_into().map_err(|error| Error::General(format!("{error}")))
}

/// For connections from those devices, to any of those services.
pub(crate) fn server(
    own: Arc<CertifiedKey>,
    allow: Allow,
    refused: Option<mpsc::Sender<DeviceId>>,
    services: Vec<Vec<u8>>,
) -> Result<QuicServerConfig, Error> {
    let verifier = Arc::new(AllowedKey { allow, refused, signatures: Signatures::new() });
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&verifier.signatures.0))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own)));
    config.alpn_protocols = services;
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.try_into().map_err(|error| Error::General(format!("{error}")))
}

/// A key that is none, or none that was asked for.
fn refused() -> Error {
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

/// The one key, and nothing beside it.
fn shown_device(key: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<DeviceId, Error> {
    if !others.is_empty() {
        return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
    }
    device_of(key).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// The half that both ends share: signatures of the handshake, by Ed25519 keys without certificates.
#[derive(Debug)]
struct Signatures(Arc<CryptoProvider>);

impl Signatures {
    fn new() -> Self {
        Self(Arc::new(ring::default_provider()))
    }

    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signature.scheme != SignatureScheme::ED25519 {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(
            message,
            &key,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }
}

/// What rustls asks of either verifier in the same words, answered by its `signatures`.
macro_rules! by_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _key: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("TLS 1.2 is never used".to_owned()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            key: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.signatures.verify(message, key, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

/// Who dials: the key must be the one that was dialled.
#[derive(Debug)]
struct DialledKey {
    device: DeviceId,
    stranger: Arc<OnceLock<DeviceId>>,
    signatures: Signatures,
}

impl ServerCertVerifier for DialledKey {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = shown_device(key, others)?;
        if shown != self.device {
            let _ = self.stranger.set(shown);
            return Err(refused());
        }
        Ok(ServerCertVerified::assertion())
    }

    by_signatures!();
}

/// Who is dialled: the key must be one of those that may come in.
#[derive(Debug)]
struct AllowedKey {
    allow: Allow,
    /// Who hears of the others.
    refused: Option<mpsc::Sender<DeviceId>>,
    signatures: Signatures,
}

impl ClientCertVerifier for AllowedKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let device = shown_device(key, others)?;
        if !allows(&self.allow, device) {
            tracing::debug!(%device, "refused: not in the allow list");
            tell(self.refused.as_ref(), device);
            return Err(refused());
        }
        Ok(ClientCertVerified::assertion())
    }

    by_signatures!();
}

/// Tells of a device that was refused, where there is room.
pub(crate) fn tell(refused: Option<&mpsc::Sender<DeviceId>>, device: DeviceId) {
    if let Some(refused) = refused {
        let _ = refused.try_send(device);
    }
}

pub(crate) fn allows(allow: &Allow, device: DeviceId) -> bool {
    match allow {
        Allow::Everyone => true,
        Allow::Only(devices) => devices.contains(&device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(key: &[u8; 32]) -> CertificateDer<'static> {
        CertificateDer::from([&SPKI_PREFIX[..], key].concat())
    }

    #[test]
    fn a_key_is_read_from_its_one_encoding_only() {
        let key = SecretKey::from_seed(&[1; 32]);
        let good = shown(&key.public().0);
        assert_eq!(device_of(&good), Some(key.device_id()));
        for wrong in [&good[..43], &good[1..], &[&good[..], &[0]].concat()] {
            assert_eq!(device_of(&CertificateDer::from(wrong.to_vec())), None);
        }
    }

    #[test]
    fn keys_with_which_anybody_could_sign_are_nobody() {
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        for weak in [identity_point, [0; 32], [0xff; 32]] {
            assert_eq!(device_of(&shown(&weak)), None);
        }
    }

    #[test]
    fn an_id_that_agrees_up_to_its_last_byte_is_another_one() {
        let key = SecretKey::from_seed(&[1; 32]);
        let mut bytes = *key.device_id().as_bytes();
        bytes[13] ^= 1;
        let (device, stranger) = (DeviceId::from_bytes(bytes), Arc::new(OnceLock::new()));
        let verifier = DialledKey { device, stranger: Arc::clone(&stranger), signatures: Signatures::new() };
        let name = ServerName::try_from("bowline").unwrap();
        let verified = verifier.verify_server_cert(&shown(&key.public().0), &[], &name, &[], UnixTime::now());
        assert_eq!(verified.unwrap_err(), refused());
        assert_eq!(stranger.get(), Some(&key.device_id()));
    }

    #[test]
    fn a_second_key_beside_the_right_one_is_refused() {
        let key = SecretKey::from_seed(&[1; 32]);
        let good = shown(&key.public().0);
        let verifier = AllowedKey { allow: Allow::Everyone, refused: None, signatures: Signatures::new() };
        let alone = verifier.verify_client_cert(&good, &[], UnixTime::now());
        let accompanied = verifier.verify_client_cert(&good, std::slice::from_ref(&good), UnixTime::now());
        assert!(alone.is_ok() && accompanied.is_err());
    }
}
