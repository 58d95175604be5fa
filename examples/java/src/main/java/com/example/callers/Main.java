package com.example.callers;

import com.google.common.util.concurrent.ListenableFuture;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.participantgateway.v1.CreateParticipantRequest;
import com.participantgateway.v1.CreateParticipantResponse;
import com.participantgateway.v1.GetQuotaRequest;
import com.participantgateway.v1.ParticipantDetails;
import com.participantgateway.v1.ParticipantRole;
import com.participantgateway.v1.ParticipantServiceGrpc;
import com.participantgateway.v1.QuotaServiceGrpc;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CancellationException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

/** Creates participants, reads quotas and checks health. Prints a line of JSON for each call. */
public final class Main {
  private static final Gson GSON = new GsonBuilder().serializeNulls().create();

  private final Arguments arguments;
  private final ManagedChannel channel;
  // The idempotency key. A repeat of a call must have the same.
  private final String clientToken;

  private Main(Arguments arguments, ManagedChannel channel) {
    this.arguments = arguments;
    this.channel = channel;
    this.clientToken = arguments.text("client-token", UUID.randomUUID().toString());
  }

  /** Runs one command. */
  public static void main(String[] texts) throws IOException, InterruptedException {
    var arguments = Arguments.of(texts);
    var file = Path.of(arguments.text("service-config", "../service-config.json"));
    var target = arguments.text("target", "127.0.0.1:50051");
    var channel = Channels.open(target, arguments.identity(), Files.readString(file));
    var main = new Main(arguments, channel);
    try {
      switch (arguments.command()) {
        case "create" -> main.createAll();
        case "quota" -> main.quota();
        case "health" -> main.health();
        default -> throw new IllegalArgumentException("usage: create|quota|health [flags]");
      }
    } finally {
      channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  private void createAll() throws InterruptedException {
    List<Running> running = new ArrayList<>();
    int calls = arguments.number("calls", 1);
    for (int number = 0; number < calls; number++) {
      running.add(create(calls > 1 ? clientToken + "-" + number : clientToken));
      Thread.sleep(arguments.number("every-ms", 0));
    }
    int cancelAfter = arguments.number("cancel-after-ms", 0);
    if (cancelAfter > 0) {
      Thread.sleep(cancelAfter);
      running.forEach(call -> call.answer().cancel(true));
    }
    for (int number = 0; number < calls; number++) {
      Map<String, Object> line = new LinkedHashMap<>(Map.of("call", number));
      line.putAll(running.get(number).await());
      emit(line);
    }
  }

  private Running create(String token) {
    var details =
        ParticipantDetails.newBuilder()
            .setParticipantRole(
                ParticipantRole.valueOf("PARTICIPANT_ROLE_" + arguments.text("role", "CUSTOM_BOT")))
            .setDisplayName(arguments.text("name", "Bot"));
    var request =
        CreateParticipantRequest.newBuilder()
            .setInstanceId(arguments.text("instance", "demo"))
            .setContactId(arguments.text("contact", "contact-1"))
            .setClientToken(token)
            .setParticipantDetails(details)
            .build();
    var headers = new AtomicReference<Metadata>();
    var trailers = new AtomicReference<Metadata>();
    var stub =
        ParticipantServiceGrpc.newFutureStub(channel)
            .withInterceptors(MetadataUtils.newCaptureMetadataInterceptor(headers, trailers))
            .withDeadlineAfter(arguments.number("timeout-ms", 5000), TimeUnit.MILLISECONDS);
    if (arguments.has("gzip")) {
      stub = stub.withCompression("gzip");
    }
    return new Running(stub.createParticipant(request), headers);
  }

  /** A call that was started; an OK has its metadata in the headers. */
  private record Running(
      ListenableFuture<CreateParticipantResponse> answer, AtomicReference<Metadata> headers) {

    Map<String, Object> await() throws InterruptedException {
      try {
        var participant = answer.get();
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("verdict", "done");
        line.put("participant_id", participant.getParticipantId());
        line.put("replayed", participant.getReplayed());
        line.put("request_id", headers.get().get(Channels.key("x-request-id")));
        line.put("remaining", remaining(headers.get()));
        return line;
      } catch (CancellationException cancelled) {
        return failed(Status.CANCELLED.asRuntimeException());
      } catch (ExecutionException failed) {
        return failed(failed.getCause());
      }
    }
  }

  private void quota() {
    var stub =
        QuotaServiceGrpc.newBlockingStub(channel)
            .withDeadlineAfter(arguments.number("timeout-ms", 5000), TimeUnit.MILLISECONDS);
    var request =
        GetQuotaRequest.newBuilder().setInstanceId(arguments.text("instance", "demo")).build();
    try {
      var quota = stub.getQuota(request);
      emit(
          Map.of(
              "verdict", "done",
              "rate_per_second", quota.getRatePerSecond(),
              "burst", quota.getBurst(),
              "remaining", quota.getRemaining(),
              "in_flight_limit", quota.getInFlightLimit()));
    } catch (StatusRuntimeException failed) {
      emit(failed(failed));
    }
  }

  private void health() {
    var stub =
        HealthGrpc.newBlockingStub(channel)
            .withDeadlineAfter(arguments.number("timeout-ms", 5000), TimeUnit.MILLISECONDS);
    if (arguments.has("gzip")) {
      stub = stub.withCompression("gzip");
    }
    var request = HealthCheckRequest.newBuilder().setService(arguments.text("service", "")).build();
    try {
      emit(Map.of("verdict", "done", "health", stub.check(request).getStatus().name()));
    } catch (StatusRuntimeException failed) {
      emit(failed(failed));
    }
  }

  private static Map<String, Object> failed(Throwable error) {
    var verdict = Verdict.of(error);
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("verdict", verdict.action().name().toLowerCase(Locale.ROOT));
    line.put("delay_ms", verdict.delay().toMillis());
    line.put("code", verdict.code().name());
    line.put("reason", verdict.reason());
    line.put("request_id", verdict.requestId());
    line.put("fields", verdict.fields());
    line.put("message", Status.fromThrowable(error).getDescription());
    // An error has its metadata in the trailers.
    line.put("remaining", remaining(Status.trailersFromThrowable(error)));
    return line;
  }

  /** The calls that the tenant's rate admits now. */
  private static Integer remaining(Metadata metadata) {
    var text = metadata == null ? null : metadata.get(Channels.key("ratelimit-remaining"));
    return text == null ? null : Integer.valueOf(text);
  }

  private static synchronized void emit(Map<String, Object> line) {
    System.out.println(GSON.toJson(line));
  }
}
