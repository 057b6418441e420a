// Act on the rejects and faults of one line: ./subscribe tcp://127.0.0.1:5560 line3
// g++ -std=c++17 -O2 subscribe.cpp -o subscribe $(pkg-config --cflags --libs libzmq)
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>
#include <zmq.hpp>
#include <zmq_addon.hpp>

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    const std::string address = argv[1], line = argv[2];
    const auto silence = 3000ms;  // health comes every second

    zmq::context_t context;
    zmq::socket_t socket(context, zmq::socket_type::sub);
    socket.set(zmq::sockopt::rcvhwm, 100'000);  // when we fall further behind, messages are dropped: seq shows it
    socket.set(zmq::sockopt::heartbeat_ivl, 1000);  // find out that a cable was pulled
    socket.set(zmq::sockopt::heartbeat_timeout, 5000);
    socket.set(zmq::sockopt::subscribe, line + "/");  // passes too: seq counts every verdict
    socket.connect(address);

    std::map<std::string, int64_t> last;  // boot -> seq of its last verdict
    auto deadline = Clock::now() + silence;
    while (true) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
        zmq::pollitem_t item{socket, 0, ZMQ_POLLIN, 0};
        if (zmq::poll(&item, 1, std::max(left, 0ms)) == 0) {
            std::cout << "silent: stop " << line << std::endl;
            deadline = Clock::now() + silence;
            continue;
        }
        std::vector<zmq::message_t> parts;
        if (!zmq::recv_multipart(socket, std::back_inserter(parts)) || parts.size() != 2) continue;
        try {
            const auto message = nlohmann::json::parse(parts[1].to_string_view());
            if (message.at("schema") != 1) continue;
            const bool is_health = parts[0].to_string_view() == line + "/-/health";
            if (is_health) deadline = Clock::now() + silence;
            const std::string boot = message.at("boot");
            const int64_t seq = message.at("seq");
            const int64_t due = is_health ? seq : seq - 1;  // what must have come before this message
            const int64_t known = last.count(boot) ? last[boot] : last.empty() ? due : 0;
            last[boot] = std::max(known, seq);
            if (due > known)
                std::cout << "lost " << known + 1 << " to " << due << ": treat those parts as rejects" << std::endl;
            if (!is_health && seq > known && message.at("decision") != "pass")
                std::cout << message.at("decision").get<std::string>() << ' ' << message.at("camera").get<std::string>()
                          << ' ' << message.at("frame") << ' ' << message.at("part") << std::endl;
        } catch (const nlohmann::json::exception&) {
        }  // not a message of ours
    }
}
