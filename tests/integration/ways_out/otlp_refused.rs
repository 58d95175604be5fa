//! What cannot be honoured of OpenTelemetry's variables is a problem, by name.

use serde_json::json;

use super::{check, config, row};

#[test]
fn every_variable_that_cannot_be_honoured_is_named() {
    let cases = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "thrift"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "brotli"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "no pair"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/dev/null"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/dev/null"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "maybe"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_EXPORTER", "prometheus"),
        ("OTEL_METRICS_EXPORTER", "console"),
        ("OTEL_METRICS_EXPORTER", "none,otlp"),
        ("OTEL_PROPAGATORS", "jaeger"),
        ("OTEL_PROPAGATORS", "none,b3"),
        ("OTEL_SDK_DISABLED", "yes"),
        ("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "-1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100000"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "sometimes"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            "base2_exponential_bucket_histogram",
        ),
    ];
    for (name, value) in cases {
        let (code, printed) = check(&config(json!({})), &[(name, value)]);
        assert!(
            code == Some(78) && printed.starts_with(&format!("{name}: expected")),
            "{name}={value}: {printed}"
        );
        if value != "/dev/null" && value != "http://" {
            row(&format!("{name}={value}"), format!("exit 78, {}", printed.trim()));
        }
    }
    let good = [
        ("OTEL_METRICS_EXPORTER", "otlp,prometheus"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "TRUE"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "5000"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_PROPAGATORS", "tracecontext,baggage,b3,b3multi,xray"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_SDK_DISABLED", "false"),
        ("OTEL_LOGS_EXPORTER", "otlp"),
    ];
    let (code, printed) = check(&config(json!({})), &good);
    assert_eq!(code, Some(0), "{printed}");
}

#[test]
fn a_secret_in_a_variable_is_not_shown() {
    let (_, printed) =
        check(&config(json!({})), &[("OTEL_EXPORTER_OTLP_HEADERS", "authorization canary")]);
    assert!(!printed.contains("canary"), "{printed}");
}
