package com.example.callers;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import io.grpc.CallCredentials;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.Executor;

/** Channels to the gateway, with the caller's identity. */
final class Channels {
  private static final TypeToken<Map<String, ?>> JSON_OBJECT = new TypeToken<>() {};

  private Channels() {}

  /**
   * Who calls, and whom the caller trusts. Every part may be null. Paths are of PEM files.
   *
   * @param tenant is sent as the header x-tenant-id. Only where something in front checks it.
   * @param tokenFile holds a bearer token. It is read anew for each call, since it is rotated.
   * @param ca holds the CAs of the gateway's certificate. It switches TLS on.
   * @param cert is a client certificate.
   * @param key is the certificate's key.
   */
  record Identity(String tenant, Path tokenFile, Path ca, Path cert, Path key) {}

  /** Opens a channel. One channel serves a whole process: share it. */
  static ManagedChannel open(String target, Identity identity, String serviceConfig)
      throws IOException {
    Map<String, ?> config = new Gson().fromJson(serviceConfig, JSON_OBJECT);
    var builder =
        Grpc.newChannelBuilder(target, credentials(identity)).defaultServiceConfig(config);
    if (identity.tokenFile() != null) {
      builder.intercept(new Authenticating(new Bearer(identity.tokenFile())));
    } else if (identity.tenant() != null) {
      var headers = new Metadata();
      headers.put(key("x-tenant-id"), identity.tenant());
      builder.intercept(MetadataUtils.newAttachHeadersInterceptor(headers));
    }
    return builder.build();
  }

  static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }

  private static ChannelCredentials credentials(Identity identity) throws IOException {
    if (identity.ca() == null) {
      return InsecureChannelCredentials.create();
    }
    var builder = TlsChannelCredentials.newBuilder().trustManager(identity.ca().toFile());
    if (identity.cert() != null) {
      builder.keyManager(identity.cert().toFile(), identity.key().toFile());
    }
    return builder.build();
  }

  /** Puts the credentials on every call. They work over TLS, and in a mesh over plaintext. */
  private record Authenticating(CallCredentials credentials) implements ClientInterceptor {
    @Override
    public <Q, A> ClientCall<Q, A> interceptCall(
        MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
      return next.newCall(method, options.withCallCredentials(credentials));
    }
  }

  private static final class Bearer extends CallCredentials {
    private final Path file;

    Bearer(Path file) {
      this.file = file;
    }

    @Override
    public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
      executor.execute(
          () -> {
            try {
              var headers = new Metadata();
              headers.put(key("authorization"), "Bearer " + Files.readString(file).strip());
              applier.apply(headers);
            } catch (IOException unreadable) {
              var cannot = Status.UNAUTHENTICATED.withDescription("cannot read " + file);
              applier.fail(cannot.withCause(unreadable));
            }
          });
    }
  }
}
