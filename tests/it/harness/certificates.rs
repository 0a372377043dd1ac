//! Certificates of every kind, as PEM files for the servers of tests/lab/play.py, for `ca_file` and
//! for curl.

use std::fs;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use serde_json::{Value, json};

use super::host::Host;

/// Properties of a certificate.
#[derive(Clone)]
pub struct Subject {
    common_name: String,
    names: Vec<String>,
    authority: IsCa,
    years: [i32; 2],
    purposes: Vec<ExtendedKeyUsagePurpose>,
}

impl Subject {
    /// Creates a server certificate for these names, which is not an authority.
    pub fn new(names: &[&str]) -> Self {
        Self {
            common_name: names.first().copied().unwrap_or("nameless").to_owned(),
            names: names.iter().map(ToString::to_string).collect(),
            authority: IsCa::NoCa,
            years: [2019, 2050],
            purposes: vec![ExtendedKeyUsagePurpose::ServerAuth],
        }
    }

    /// Creates an authority of that name.
    pub fn authority(name: &str) -> Self {
        Self { common_name: name.to_owned(), purposes: Vec::new(), ..Self::new(&[]).ca(true) }
    }

    /// Sets an explicit CA:TRUE or CA:FALSE.
    pub fn ca(self, is_ca: bool) -> Self {
        let authority = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        Self { authority, ..self }
    }

    /// Sets a common name other than the first alternative name.
    pub fn common_name(self, common_name: &str) -> Self {
        Self { common_name: common_name.to_owned(), ..self }
    }

    /// Sets the years at whose start the validity begins and ends.
    pub fn valid(self, from: i32, to: i32) -> Self {
        Self { years: [from, to], ..self }
    }

    /// Sets the key usages; an empty list permits all.
    pub fn purposes(self, purposes: Vec<ExtendedKeyUsagePurpose>) -> Self {
        Self { purposes, ..self }
    }

    fn parameters(&self) -> CertificateParams {
        let mut parameters = CertificateParams::new(self.names.clone()).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, &self.common_name);
        parameters.is_ca = self.authority;
        if let IsCa::Ca(_) = self.authority {
            parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        }
        parameters.extended_key_usages.clone_from(&self.purposes);
        parameters.not_before = date_time_ymd(self.years[0], 1, 1);
        parameters.not_after = date_time_ymd(self.years[1], 1, 1);
        parameters
    }
}

/// A certificate with its key.
pub struct Issued {
    pub certificate: Certificate,
    parameters: CertificateParams,
    key: KeyPair,
}

impl Issued {
    pub fn self_signed(subject: &Subject) -> Self {
        let key = KeyPair::generate().unwrap();
        let parameters = subject.parameters();
        Self { certificate: parameters.self_signed(&key).unwrap(), parameters, key }
    }

    /// Signs another certificate.
    pub fn issue(&self, subject: &Subject) -> Self {
        let key = KeyPair::generate().unwrap();
        let parameters = subject.parameters();
        let issuer = Issuer::from_params(&self.parameters, &self.key);
        Self { certificate: parameters.signed_by(&key, &issuer).unwrap(), parameters, key }
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Writes the certificate and its key under that name, with further certificates of the chain.
    /// Returns the `tls` member of a listener.
    pub fn served(&self, host: &Host, name: &str, others: &[&Self]) -> Value {
        let chain: String = [self.pem()].into_iter().chain(others.iter().map(|other| other.pem())).collect();
        let key = self.key.serialize_pem();
        fs::write(host.path(&format!("{name}.key")), key).unwrap();
        json!({ "chain": host.write(&format!("{name}.pem"), &chain), "key": host.path(&format!("{name}.key")) })
    }
}

/// Returns the `tls` member of a server of HTTP/2 at 127.0.0.1, and the path of its authority.
pub fn http_2(host: &Host) -> (Value, String) {
    let root = Issued::self_signed(&Subject::authority("root"));
    let mut tls = root.issue(&Subject::new(&["127.0.0.1"])).served(host, "h2", &[]);
    tls["alpn"] = json!(["h2"]);
    (tls, host.write("root.pem", &root.pem()))
}
