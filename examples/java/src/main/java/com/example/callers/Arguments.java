package com.example.callers;

import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;

/** The command line: a command, flags with a value, and {@code --gzip}. */
record Arguments(String command, Map<String, String> values) {
  private static final Set<String> FLAGS =
      Set.of(
          "target",
          "service-config",
          "tenant",
          "token-file",
          "ca",
          "cert",
          "key",
          "instance",
          "contact",
          "role",
          "name",
          "client-token",
          "service",
          "timeout-ms",
          "every-ms",
          "cancel-after-ms",
          "calls");

  static Arguments of(String... texts) {
    if (texts.length == 0) {
      throw new IllegalArgumentException("usage: create|quota|health [flags]");
    }
    Map<String, String> values = new HashMap<>();
    for (int at = 1; at < texts.length; at++) {
      String name = texts[at].replaceFirst("^--", "");
      if (name.equals("gzip")) {
        values.put(name, "true");
      } else if (FLAGS.contains(name) && at + 1 < texts.length) {
        values.put(name, texts[++at]);
      } else {
        throw new IllegalArgumentException("unknown flag, or one without its value: " + texts[at]);
      }
    }
    return new Arguments(texts[0], values);
  }

  String text(String name, String absent) {
    return values.getOrDefault(name, absent);
  }

  int number(String name, int absent) {
    return Integer.parseInt(text(name, Integer.toString(absent)));
  }

  boolean has(String name) {
    return values.containsKey(name);
  }

  Channels.Identity identity() {
    return new Channels.Identity(
        text("tenant", null), path("token-file"), path("ca"), path("cert"), path("key"));
  }

  private Path path(String name) {
    return has(name) ? Path.of(text(name, "")) : null;
  }
}
