// A subscriber in C++, written from docs/wire.md alone: prints ten frames, always the newest.
//
//   sudo apt-get install g++ libzmq3-dev nlohmann-json3-dev
//   g++ -std=c++17 -O2 -Wall -o subscriber tools/clients/subscriber.cpp -lzmq
//   ./subscriber tcp://127.0.0.1:5555

#include <zmq.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

struct Picture {
    nlohmann::json header;
    // Row by row: R, G, B of rgb24; Y, then U, then V of yuv420p; Y, then U and V in turn of nv12. A view, not a copy.
    const std::uint8_t* pixels;
    std::size_t width, height;
};

std::size_t bytes_of(const std::string& format, std::size_t width, std::size_t height) {
    if (format == "rgb24") return width * height * 3;
    if (format == "yuv420p" || format == "nv12") return width * height + (width + 1) / 2 * ((height + 1) / 2) * 2;
    throw std::runtime_error("not what this client reads");
}

Picture parse(const std::uint8_t* bytes, std::size_t size) {
    const void* zero = std::memchr(bytes, 0, std::min<std::size_t>(size, 256));
    if (!zero) throw std::runtime_error("not rtfuse");
    const std::size_t at = static_cast<const std::uint8_t*>(zero) - bytes + 1;
    if (size - at < 4) throw std::runtime_error("cut off");
    const std::size_t length = bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 | std::size_t(bytes[at + 3]) << 24;
    if (length > 65536 || length > size - at - 4) throw std::runtime_error("cut off, or not rtfuse");
    const std::uint8_t* text = bytes + at + 4;
    Picture picture{nlohmann::json::parse(text, text + length), text + length, 0, 0};
    const auto& header = picture.header;
    if (header.at("version") != 1 || header.at("encoding") != "raw")
        throw std::runtime_error("not what this client reads");
    const auto width = header.at("width").get<std::int64_t>(), height = header.at("height").get<std::int64_t>();
    if (width < 1 || height < 1 || width > 16384 || height > 16384) throw std::runtime_error("wrong size");
    picture.width = width, picture.height = height;
    const auto expected = bytes_of(header.at("pixel_format"), picture.width, picture.height);
    if (size - at - 4 - length != expected) throw std::runtime_error("wrong payload");
    return picture;
}

int main(int argc, char** argv) {
    void* context = zmq_ctx_new();
    void* socket = zmq_socket(context, ZMQ_SUB);
    const int newest_only = 1, linger = 0;
    const std::int64_t largest = 64 << 20;
    zmq_setsockopt(socket, ZMQ_CONFLATE, &newest_only, sizeof newest_only);
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &largest, sizeof largest);
    zmq_setsockopt(socket, ZMQ_SUBSCRIBE, "fused", 6);  // with its zero byte
    if (zmq_connect(socket, argc > 1 ? argv[1] : "tcp://127.0.0.1:5555") != 0) return std::perror("connect"), 1;
    for (int received = 0; received < 10;) {
        zmq_msg_t message;
        zmq_msg_init(&message);
        if (zmq_msg_recv(&message, socket, 0) < 0) return std::perror("receive"), 1;
        try {
            const auto p = parse(static_cast<const std::uint8_t*>(zmq_msg_data(&message)), zmq_msg_size(&message));
            std::printf("%s %lld %zux%zu %d,%d,%d\n", p.header.at("session").get<std::string>().c_str(),
                        p.header.at("seq").get<long long>(), p.width, p.height, p.pixels[0], p.pixels[1], p.pixels[2]);
            ++received;
        } catch (const std::exception& error) {
            std::fprintf(stderr, "skipped: %s\n", error.what());
        }
        zmq_msg_close(&message);
    }
    zmq_close(socket);
    zmq_ctx_term(context);
}
