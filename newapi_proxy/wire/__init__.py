"""Bytes to frames and trees and back; knows no provider."""
