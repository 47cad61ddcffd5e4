//! `podgres manifest`: the Kubernetes objects of a cluster, for `kubectl apply -f -`. Asks nobody, changes nothing.
//!
//! The objects are a text with places for values, so that people find in it what they would have written. Nothing gets
//! into a place that was not checked to be harmless there.

use std::{fs, io::Write, process::ExitCode};

use clap::{Arg, ArgMatches, Command};

use super::{EX_FAILED, fail, status::written};
use crate::settings::kubernetes::is_label;

const OBJECTS: &str = include_str!("manifest/cluster.yaml");

/// What stands before the objects where the Secret is not one of them.
const HINT: &str = "\
# Made by `podgres manifest`. The superuser's password is not in here; these make it, once, before or after:
#
#   openssl rand -hex 24 | tr -d '\\n' |
#     kubectl --namespace {{namespace}} create secret generic {{name}} --from-file=password=/dev/stdin
#
";

const SECRET: &str = "\
# Made by `podgres manifest`, with the superuser's password in it: keep it where passwords are kept.
apiVersion: v1
kind: Secret
metadata:
  name: {{name}}
  namespace: {{namespace}}
  labels:
    podgres.io/cluster: {{name}}
stringData:
  password: {{password}}
---
";

/// The first minor version of Kubernetes 1 with all that is in the objects, and the first with `policy/v1`
/// (<https://kubernetes.io/docs/reference/using-api/deprecation-guide/#poddisruptionbudget-v125>).
const OLDEST: u32 = 20;
const POLICY_V1: u32 = 21;

pub(super) fn command() -> Command {
    Command::new("manifest")
        .about("Print the Kubernetes objects of a cluster, for `kubectl apply -f -`")
        .long_about(ABOUT)
        .arg(
            argument("name", "NAME", "Name of the cluster and its objects", NAME)
                .default_value("db")
                .value_parser(name),
        )
        .arg(
            argument("namespace", "NAMESPACE", "Namespace of all objects", NAMESPACE)
                .default_value("default")
                .value_parser(namespace),
        )
        .arg(
            argument("replicas", "NUMBER", "How many members", REPLICAS)
                .default_value("3")
                .value_parser(clap::value_parser!(u32).range(1..=100)),
        )
        .arg(argument("image", "IMAGE", "Container image", IMAGE).default_value("podgres:17").value_parser(image))
        .arg(
            argument("storage", "SIZE", "Size of each member's volume", STORAGE)
                .default_value("10Gi")
                .value_parser(size),
        )
        .arg(
            argument("storage-class", "NAME", "StorageClass of the volumes", STORAGE_CLASS).value_parser(storage_class),
        )
        .arg(argument("memory", "SIZE", "Memory of each member", MEMORY).default_value("1Gi").value_parser(size))
        .arg(
            argument("cpu", "CPUS", "Processors that each member is sure of", CPU)
                .default_value("250m")
                .value_parser(cpu),
        )
        .arg(argument("tls-secret", "NAME", "Secret with the members' certificate", TLS_SECRET).value_parser(secret))
        .arg(argument("password-file", "FILE", "Print the Secret too, with this password", PASSWORD_FILE))
        .arg(argument("kubernetes", "VERSION", "Version of the cluster", KUBERNETES).value_parser(version))
}

const ABOUT: &str = "\
Print the Kubernetes objects of a cluster of PostgreSQL members: a StatefulSet with its Services, the right to use a
Lease and to label its own pods, a PodDisruptionBudget and a NetworkPolicy. The output depends on the flags alone, so
it can be kept beside your other manifests and compared:

    podgres manifest --name db --replicas 3 | kubectl apply -f -

The pods fit the \"restricted\" Pod Security Standard. The superuser's password is in a Secret with the cluster's name;
the first lines of the output say how to make it.";

const NAME: &str = "\
The name of the cluster, and of its StatefulSet, ServiceAccount, Role, Secret and Lease. Clients connect to the Service
NAME-rw to write, and to NAME-ro to read from standbys. At most 52 lower-case letters, digits and hyphens; it begins
with a letter.";
const NAMESPACE: &str = "The namespace of all objects. It has to be there.";
const REPLICAS: &str = "\
How many members the cluster has: one primary, the others standbys. From two on, a member may fail. `kubectl scale`
changes it later.";
const IMAGE: &str = "The container image of podgres and PostgreSQL, where the cluster's nodes can pull it from.";
const STORAGE: &str = "\
The size of each member's volume, such as 10Gi. It cannot be changed in a StatefulSet later, only in each member's
PersistentVolumeClaim, if the StorageClass allows that.";
const STORAGE_CLASS: &str = "The StorageClass of the volumes. Without this flag it is the cluster's default.";
const MEMORY: &str = "\
The memory of each member, such as 4Gi: requested, and the limit. podgres sizes PostgreSQL's buffers to it.";
const CPU: &str = "\
The processors that each member requests, such as 2 or 500m. There is no limit: what is idle may be used.";
const TLS_SECRET: &str = "\
A Secret of the type kubernetes.io/tls, with ca.crt beside tls.crt and tls.key, as cert-manager makes them: TLS for
PostgreSQL, for HTTP and between the members. Probes ask over HTTPS then. With `tls-only = \"true\"` in podgres.toml
of the ConfigMap nobody does without.";
const PASSWORD_FILE: &str = "\
Read the superuser's password from this file (/dev/stdin: from the standard input) and print the Secret that holds it,
too. Without this flag no Secret is printed, and the first lines of the output say how to make one.";
const KUBERNETES: &str = "\
The version of the cluster's API server, such as 1.20, which is the oldest that this works with. Needed for 1.20 alone,
whose PodDisruptionBudget is in policy/v1beta1; later ones have policy/v1.";

fn argument(name: &'static str, value: &'static str, short: &'static str, long: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(short).long_help(long)
}

pub(super) fn main(matches: &ArgMatches) -> ExitCode {
    match print(matches) {
        Ok(text) => written(std::io::stdout().write_all(text.as_bytes())).unwrap_or(ExitCode::SUCCESS),
        Err(why) => fail(EX_FAILED, why),
    }
}

fn print(matches: &ArgMatches) -> Result<String, String> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let password = text("password-file").map(|path| password(&path)).transpose()?;
    let minor = matches.get_one::<u32>("kubernetes").copied().unwrap_or(POLICY_V1);
    let policy = if minor < POLICY_V1 { "policy/v1beta1" } else { "policy/v1" };
    let values = [
        ("name", text("name")),
        ("namespace", text("namespace").map(scalar)),
        ("replicas", matches.get_one::<u32>("replicas").map(u32::to_string)),
        ("image", text("image").map(scalar)),
        ("storage", text("storage")),
        ("storage-class", text("storage-class").map(scalar)),
        ("memory", text("memory")),
        ("cpu", text("cpu")),
        ("tls", text("tls-secret").map(|_| String::new())),
        ("tls-secret", text("tls-secret").map(scalar)),
        ("policy", Some(policy.to_string())),
        // A JSON text is a YAML text, whatever is in it.
        ("password", password.map(|p| serde_json::Value::String(p).to_string())),
    ];
    let first = if values.iter().any(|(name, value)| *name == "password" && value.is_some()) { SECRET } else { HINT };
    Ok(format!("{}{}", fill(first, &values), fill(OBJECTS, &values)))
}

/// Puts each value into its places. A line with a place for a value that there is not is left out.
fn fill(template: &str, values: &[(&str, Option<String>)]) -> String {
    let line = |line: &str| {
        values.iter().try_fold(line.to_string(), |line, (name, value)| {
            let place = format!("{{{{{name}}}}}");
            match value {
                _ if !line.contains(&place) => Some(line),
                Some(value) => Some(line.replace(&place, value)),
                None => None,
            }
        })
    };
    template.lines().filter_map(line).map(|line| line + "\n").collect()
}

fn password(path: &str) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("--password-file {path} cannot be read: {e}"))?;
    let text = text.trim_end_matches(['\n', '\r']);
    match text {
        "" => Err(format!("--password-file {path} is empty: wanted is one line with the superuser's password")),
        _ if text.contains(['\n', '\r', '\0']) => {
            Err(format!("--password-file {path} has more than one line: wanted is one with the superuser's password"))
        }
        _ => Ok(text.to_string()),
    }
}

/// The text as YAML: in quotes where some parser would take it for a number, a truth or nothing
/// (<https://yaml.org/type/bool.html>).
fn scalar(text: String) -> String {
    if is_plain(&text) { text } else { format!("\"{text}\"") }
}

fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && !WORDS.contains(&text.to_lowercase().as_str())
}

/// A Service's name begins with a letter; a StatefulSet's pods have a label with its name and eleven characters more
/// (<https://github.com/kubernetes/kubernetes/issues/64023>). Parts of longer names cannot be in quotes.
fn name(text: &str) -> Result<String, String> {
    let wish =
        "at most 52 lower-case letters, digits and hyphens, a letter first, no hyphen at the end, and no word of YAML";
    wanted(is_label(text) && text.len() <= 52 && is_plain(text), text, wish)
}

fn namespace(text: &str) -> Result<String, String> {
    wanted(is_label(text), text, "at most 63 lower-case letters, digits and hyphens, no hyphen at either end")
}

fn secret(text: &str) -> Result<String, String> {
    wanted(is_subdomain(text), text, "the name of a Secret")
}

/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names>
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn storage_class(text: &str) -> Result<String, String> {
    wanted(is_subdomain(text), text, "the name of a StorageClass")
}

/// Not the whole grammar of references, which the nodes know; nothing that means something to YAML.
fn image(text: &str) -> Result<String, String> {
    let ends = |c: char| c.is_ascii_alphanumeric();
    let middle = |c: char| ends(c) || "._-/:@".contains(c);
    wanted(
        text.starts_with(ends) && text.ends_with(ends) && text.chars().all(middle),
        text,
        "an image such as podgres:17 or registry.example/podgres:17",
    )
}

/// A quantity of bytes (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>), with a unit:
/// ten bytes are nobody's wish.
fn size(text: &str) -> Result<String, String> {
    let good = ["Ki", "Mi", "Gi", "Ti", "Pi", "k", "M", "G", "T", "P"]
        .iter()
        .find_map(|unit| text.strip_suffix(unit))
        .is_some_and(is_number);
    wanted(good, text, "a size such as 512Mi or 10Gi")
}

fn cpu(text: &str) -> Result<String, String> {
    let good = match text.strip_suffix('m') {
        Some(thousandths) => is_number(thousandths) && !thousandths.contains('.'),
        None => is_number(text),
    };
    wanted(good, text, "a number of processors such as 2, 0.5 or 500m")
}

/// More than nothing, without a sign or an exponent.
fn is_number(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    digits(whole) && digits(fraction) && text.bytes().any(|b| (b'1'..=b'9').contains(&b))
}

/// The minor version of `1.20`, `v1.20.2`.
fn version(text: &str) -> Result<u32, String> {
    let minor = text.trim_start_matches('v').strip_prefix("1.").and_then(|rest| rest.split('.').next()?.parse().ok());
    minor.filter(|minor| *minor >= OLDEST).ok_or_else(|| format!("wanted is a version from 1.{OLDEST} on"))
}

fn wanted(good: bool, text: &str, what: &str) -> Result<String, String> {
    if good { Ok(text.to_string()) } else { Err(format!("wanted is {what}")) }
}

#[cfg(test)]
mod restricted;
#[cfg(test)]
mod tests;
